#!/bin/sh
# Compiles the programs of the images: `sh docker/compile.sh cpu|cuda`, at the root of the project.
#
# One after the other: compiled together, `excite` would get the features of the services, and with
# them clients of servers that it never talks to.
set -eu
case "${1:-}" in
cpu) features= ;;
cuda) features=--features=cuda ;;
*)
    echo "error: the device is \`${1:-}\`; use cpu or cuda" >&2
    exit 2
    ;;
esac
cargo build --release --locked -p excite-dispatcher
cargo build --release --locked -p excite-worker ${features:+"$features"}
cargo build --release --locked -p excite ${features:+"$features"}
