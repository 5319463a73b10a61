#!/usr/bin/env python3
"""Checks that one version is meant everywhere: crates, lock file, chart, changelog and tag.

The version is `workspace.package.version` in Cargo.toml. Between releases the changelog's first
entry is `Unreleased`; for a release (`--tag`) it must be the version, with a date.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
VERSION = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?")
ENTRY = re.compile(rf"## (?P<version>{VERSION.pattern}) - (?P<date>\d{{4}}-\d{{2}}-\d{{2}})")


def workspace(root: Path, faults: list[str]) -> str:
    """The version of the workspace."""
    manifest = tomllib.loads((root / "Cargo.toml").read_text())
    version = manifest["workspace"]["package"]["version"]
    if not VERSION.fullmatch(version):
        faults.append(f"Cargo.toml: version is `{version}`; write MAJOR.MINOR.PATCH")
    return version


def crates(root: Path, version: str, faults: list[str]) -> int:
    """Looks at every crate of the workspace and at the lock file; says how many there are."""
    manifests = sorted(root.glob("crates/*/Cargo.toml")) + [root / "tests/Cargo.toml"]
    names = set()
    for manifest in manifests:
        package = tomllib.loads(manifest.read_text())["package"]
        names.add(package["name"])
        if package.get("version") != {"workspace": True}:
            faults.append(f"{manifest.relative_to(root)}: version is `{package.get('version')}`; "
                          "write `version.workspace = true`")
    for locked in tomllib.loads((root / "Cargo.lock").read_text())["package"]:
        if locked["name"] in names and locked["version"] != version:
            faults.append(f"Cargo.lock: {locked['name']} is `{locked['version']}`, but Cargo.toml "
                          f"says {version}; run `cargo metadata` once and commit the lock file")
    return len(names)


def chart(root: Path, version: str, faults: list[str]) -> str:
    """Looks at the chart, if there is one."""
    path = root / "charts/excite/Chart.yaml"
    if not path.is_file():
        return "no chart"
    text = path.read_text()
    for key in ("version", "appVersion"):
        found = re.search(rf"^{key}:\s*[\"']?([^\"'\s#]+)", text, re.MULTILINE)
        value = found[1] if found else "missing"
        if value != version:
            faults.append(f"charts/excite/Chart.yaml: {key} is `{value}`; set it to {version}")
    return "chart"


def changelog(root: Path, version: str, tag: str | None, faults: list[str]) -> str:
    """Looks at the first entries of the changelog."""
    lines = (root / "CHANGELOG.md").read_text().splitlines()
    entries = [line for line in lines if line.startswith("## ")]
    if not entries:
        faults.append("CHANGELOG.md: it has no entry; begin with `## Unreleased`")
        return ""
    top = entries[0]
    for entry in entries if top != "## Unreleased" else entries[1:]:
        if not ENTRY.fullmatch(entry):
            faults.append(f"CHANGELOG.md: `{entry}` is no entry; write `## {version} - YYYY-MM-DD`")
    released = [m["version"] for m in map(ENTRY.fullmatch, entries) if m]
    if top == "## Unreleased":
        if tag:
            faults.append(f"CHANGELOG.md: the first entry is `{top}`; for a release write "
                          f"`## {version} - YYYY-MM-DD`")
        if released and released[0] != version:
            faults.append(f"CHANGELOG.md: the last release is {released[0]}, but Cargo.toml says "
                          f"{version}; the version changes with the release")
    elif released and released[0] != version:
        faults.append(f"CHANGELOG.md: the first entry is {released[0]}, but Cargo.toml says "
                      f"{version}; make them agree")
    return top.removeprefix("## ")


def main() -> int:
    """Reads the command line, checks, and gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tag", help="the tag of a release, such as v0.1.0")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to look at")
    args = parser.parse_args()
    faults: list[str] = []
    version = workspace(args.root, faults)
    count = crates(args.root, version, faults)
    has_chart = chart(args.root, version, faults)
    entry = changelog(args.root, version, args.tag, faults)
    if args.tag and args.tag != f"v{version}":
        faults.append(f"the tag is `{args.tag}`, but Cargo.toml says {version}; tag v{version}")
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if not faults:
        print(f"{version}: {count} crates, {has_chart}, changelog `{entry}`"
              + (f", tag {args.tag}" if args.tag else ""))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
