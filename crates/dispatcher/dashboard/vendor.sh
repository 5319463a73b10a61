#!/bin/sh
# Fetches the vendored libraries of the dashboard from npm, at the versions pinned here, and checks them.
# For a newer version: set VERSION and INTEGRITY (`npm view uplot@VERSION dist.integrity`) and run it.
set -eu

NAME=uplot
VERSION=1.6.32
INTEGRITY=sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==

here=$(cd "$(dirname "$0")" && pwd)
target=$here/vendor/$NAME
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cd "$scratch"
archive=$(npm pack --silent --ignore-scripts "$NAME@$VERSION")
found=sha512-$(openssl dgst -sha512 -binary "$archive" | openssl base64 -A)
if [ "$found" != "$INTEGRITY" ]; then
    echo "$archive has $found, not $INTEGRITY" >&2
    exit 1
fi
tar -xzf "$archive"

mkdir -p "$target"
cp package/dist/uPlot.esm.js package/dist/uPlot.min.css package/LICENSE "$target/"
cat > "$target/README.md" <<END
# uPlot $VERSION

VERSION: $VERSION
INTEGRITY: $INTEGRITY

The charts of the dashboard. MIT licence, in \`LICENSE\`. Unchanged from npm; \`vendor.sh\` two folders
above fetches and checks it. Change nothing here by hand.
END
echo "vendor/$NAME is at $VERSION"
