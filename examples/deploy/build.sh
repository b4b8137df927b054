#!/usr/bin/env bash
# Builds the example functions for AWS, optimized for size: build.sh [arm64|x86-64]. Default: arm64. The archives are in
# target/lambda. Needs `cargo lambda` (https://www.cargo-lambda.info), which can cross-compile for either architecture.
set -euo pipefail
cd "$(dirname "$0")/../.."

architecture=${1:-arm64}
case $architecture in
    arm64 | x86-64) ;;
    *)
        echo "build.sh: $architecture is not an architecture of Lambda: pass arm64 or x86-64" >&2
        exit 2
        ;;
esac

# Every cold start loads the function, so its size matters. Panics unwind, because they must be reported to Lambda.
export CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 CARGO_PROFILE_RELEASE_STRIP=true
export CARGO_PROFILE_RELEASE_OPT_LEVEL=s

mkdir -p target/lambda
for function in authorizer on_connect on_disconnect; do
    cargo lambda build --release "--$architecture" --output-format zip --no-default-features --features runtime --example "$function"
done
cargo lambda build --release "--$architecture" --output-format zip --example push_to_websocket
cargo lambda build --release "--$architecture" --output-format zip --features dynamodb,hub,worker \
    --example enqueue --example worker --example chat_function --example chat_sweeper
for function in authorizer on_connect on_disconnect push_to_websocket enqueue worker chat_function chat_sweeper; do
    cp "target/lambda/$function/bootstrap.zip" "target/lambda/$function.zip"
done
ls -l target/lambda/*.zip
