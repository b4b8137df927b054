# What the scripts below `tests` share. Source it in the root of the repository.
#
# Tools are installed below target/tools, in the versions of tests/requirements and of package-lock.json, whose hashes
# are checked. A tool that cannot be installed fails the script.

# Runs a command up to three times: registries are sometimes unavailable.
retry() {
    "$@" && return
    for pause in 5 20; do
        echo "failed, trying again in $pause s: $1" >&2
        sleep "$pause"
        "$@" && return
    done
    return 1
}

# python_tools NAME: a virtual environment with tests/requirements/NAME.txt. Sets `python`, and `bin` with its programs.
python_tools() {
    local wanted=tests/requirements/$1.txt environment=target/tools/$1
    bin=$PWD/$environment/bin
    python=$bin/python
    cmp -s "$wanted" "$environment/installed.txt" && return
    rm -rf "$environment"
    python3 -m venv "$environment"
    retry "$bin/pip" install --quiet --disable-pip-version-check --require-hashes --requirement "$wanted"
    cp "$wanted" "$environment/installed.txt"
}

# npm_tools FOLDER: the packages of FOLDER/package-lock.json. Sets `modules`.
npm_tools() {
    local installed=target/tools/npm-${1##*/}
    modules=$PWD/$installed/node_modules
    cmp -s "$1/package-lock.json" "$installed/installed.json" && return
    rm -rf "$installed"
    mkdir -p "$installed"
    cp "$1/package.json" "$1/package-lock.json" "$installed/"
    retry npm ci --silent --no-audit --no-fund --ignore-scripts --prefix "$installed"
    cp "$1/package-lock.json" "$installed/installed.json"
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# wait_for PID LOG COMMAND…: waits until the command succeeds. Fails with the log if the process ends first.
wait_for() {
    local pid=$1 log=$2
    shift 2
    for _ in $(seq 300); do
        "$@" 2>/dev/null && return
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    cat "$log"
    echo "did not start: see above" >&2
    return 1
}

is_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1"); }

# cargo_tool NAME VERSION: a program of crates.io. Sets `cargo_bin`.
cargo_tool() {
    cargo_bin=$PWD/target/tools/bin
    "$cargo_bin/$1" "${1#cargo-}" --version 2>/dev/null | grep -qF "$2" && return
    # In its own profile and folder, which does not grow with that of the crate.
    CARGO_TARGET_DIR=target/tools/build CARGO_PROFILE_RELEASE_OPT_LEVEL=0 \
        retry cargo install --quiet --locked --root target/tools --version "$2" "$1"
}

# A rustdoc with the features of a nightly toolchain; everything else is built by the stable one. Sets `rustdoc`.
nightly_rustdoc() {
    rustdoc=$PWD/target/tools/rustdoc
    mkdir -p target/tools
    printf '#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc "$@"\n' >"$rustdoc"
    chmod +x "$rustdoc"
}
