#!/bin/sh
# Copies what decides about dependencies: `sh docker/outline.sh FOLDER`, at the root of the project.
#
# Manifests, the lock file, cargo's settings and vendored crates as they are; of our sources the files
# that cargo wants to find, without content. Cargo compiles all dependencies of that, and the copy
# only changes when one of these does.
set -eu
to=${1:?name the folder to copy to}
mkdir -p "$to"
cp Cargo.toml Cargo.lock "$to"
for folder in .cargo vendor; do
    if [ -d "$folder" ]; then cp -R "$folder" "$to"; fi
done
for manifest in crates/*/Cargo.toml tests/Cargo.toml; do
    package=$(dirname "$manifest")
    mkdir -p "$to/$package/src"
    cp "$manifest" "$to/$package"
    for source in "$package"/build.rs "$package"/src/main.rs "$package"/src/bin/*.rs \
        "$package"/benches/*.rs; do
        if [ -f "$source" ]; then
            mkdir -p "$to/$(dirname "$source")"
            echo 'fn main() {}' >"$to/$source"
        fi
    done
    if [ -f "$package/src/lib.rs" ]; then : >"$to/$package/src/lib.rs"; fi
done
