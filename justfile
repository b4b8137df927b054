# Commands for contributors; see CONTRIBUTING.md.

set shell := ["bash", "-euo", "pipefail", "-c"]

# The list in .ci/run is the same.
features := "runtime anyhow,garde metrics metrics,push tickets rate-limit tickets,rate-limit,dynamodb push sdk sdk,sso direct registry hub conformance dynamodb reply worker local aws_lambda_events"

# Lists the recipes.
default:
    @just --list

# Checks formatting and lints, and runs the unit and integration tests with every feature.
fast:
    cargo fmt --check
    cargo clippy --all-features --all-targets -- -D warnings
    @# The integration tests start examples as functions, and `--test` does not build these.
    cargo build --all-features --examples
    cargo test --all-features --lib
    cargo test --all-features --test it

# Builds the documentation with warnings as errors, and runs its examples.
docs:
    RUSTDOCFLAGS='-D warnings' cargo doc --all-features --no-deps
    cargo test --all-features --doc

# Checks the crate without features, and with each feature by itself.
features:
    cargo clippy --no-default-features --all-targets -- -D warnings
    for feature in {{ features }}; do \
        echo "== $feature"; \
        cargo clippy --quiet --no-default-features --features "$feature" --lib -- -D warnings; \
    done

# Checks each pair of features. Needs cargo-hack.
powerset:
    cargo hack check --feature-powerset --depth 2 --no-dev-deps --lib

# Records the public items, after a change that is meant.
public-api:
    tests/public-api/run --write

# Runs third-party clients, a browser, the templates, and the emulators.
interop:
    tests/interop/clients
    tests/browser/run
    tests/templates/check
    tests/e2e/run
    tests/interop/emulators

# Fuzzes one target, such as `event`, for a number of seconds. Needs cargo-fuzz.
fuzz target seconds="60":
    mkdir -p fuzz/corpus/{{ target }}
    RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none --target-dir target/fuzz {{ target }} \
        fuzz/corpus/{{ target }} tests/events -- -max_total_time={{ seconds }}

# Runs everything that must pass before a change is merged.
all:
    .ci/run
