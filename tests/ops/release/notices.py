#!/usr/bin/env python3
"""Makes THIRD-PARTY-NOTICES.md: what others made of the programs, under which licences.

Crates come from `cargo metadata`: those that are compiled into `excite`, `excite-worker` or
`excite-dispatcher` on a system that releases are made for. What else is part of the programs is
listed by hand in MATERIALS. `--texts` collects the licences themselves, for release archives.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
NOTICES = "THIRD-PARTY-NOTICES.md"
PROGRAMS = ("excite", "excite-worker", "excite-dispatcher")
SYSTEMS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu")
# How crates call the files that hold their licences.
TEXT = re.compile(r"^(licen[cs]e|copying|copyright|notice|unlicense|ofl)", re.IGNORECASE)


@dataclass(frozen=True)
class Material:
    """Something in the programs that is no crate."""

    name: str
    version: str
    licence: str
    where: str
    # The licence in this repository; None where the licence asks for no text in programs.
    text: str | None


def uplot_version() -> str:
    """The version that the vendored copy says of itself."""
    readme = (ROOT / "crates/dispatcher/dashboard/vendor/uplot/README.md").read_text()
    found = re.search(r"^VERSION: (\S+)$", readme, re.MULTILINE)
    if not found:
        fail("vendor/uplot/README.md has no line `VERSION: ...`; run dashboard/vendor.sh again")
    return found[1]


def materials() -> list[Material]:
    """What is in the programs beside crates."""
    return [
        Material("uPlot", uplot_version(), "MIT", "`crates/dispatcher/dashboard/vendor/uplot`",
                 "crates/dispatcher/dashboard/vendor/uplot/LICENSE"),
        Material("WordNet", "3.1", "WordNet", "`crates/prompt/lexicon/lexicon.txt`",
                 "crates/prompt/lexicon/LICENSE.WordNet"),
        Material("CLIP vocabulary, OpenAI", "", "MIT", "`models/emoji/tokenizer`", None),
        Material("Noto Color Emoji, Google", "", "OFL-1.1",
                 "training pictures of `models/emoji`; the font itself is in no program", None),
    ]


@dataclass(frozen=True)
class Crate:
    """A crate that is compiled into a program."""

    name: str
    version: str
    licence: str
    folder: Path
    licence_file: str | None

    def texts(self) -> list[Path]:
        """Files of the crate that hold its licence."""
        found = {path for path in self.folder.iterdir() if path.is_file() and TEXT.match(path.name)}
        if self.licence_file:
            found.add(self.folder / self.licence_file)
        folders = [p for p in self.folder.iterdir() if p.is_dir() and TEXT.match(p.name)]
        found.update(path for folder in folders for path in folder.iterdir() if path.is_file())
        return sorted(path for path in found if path.suffix != ".rs" and path.is_file())


def fail(message: str) -> None:
    """Ends the program with a message."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(1)


def metadata(system: str) -> dict:
    """What cargo knows of the crates on a system."""
    cargo = os.environ.get("CARGO", "cargo")
    command = [cargo, "metadata", "--format-version=1", "--locked", "--all-features",
               f"--filter-platform={system}"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        fail(f"there is no `{cargo}`; install Rust, or set CARGO")
    if done.returncode != 0:
        fail(f"`{' '.join(command)}` ended with {done.returncode}:\n{done.stderr.strip()}")
    return json.loads(done.stdout)


def crates() -> list[Crate]:
    """The crates of the programs on all systems, by name and version."""
    found: dict[str, Crate] = {}
    for system in SYSTEMS:
        data = metadata(system)
        packages = {package["id"]: package for package in data["packages"]}
        nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
        ours = set(data["workspace_members"])
        queue = deque(p for p in ours if packages[p]["name"] in PROGRAMS)
        if len(queue) != len(PROGRAMS):
            fail(f"the workspace lacks one of {', '.join(PROGRAMS)}; mend PROGRAMS in {__file__}")
        seen = set(queue)
        while queue:
            for dependency in nodes[queue.popleft()]["deps"]:
                # Neither what tests need nor what build scripts need ends up in a program.
                normal = any(kind["kind"] is None for kind in dependency["dep_kinds"])
                if normal and dependency["pkg"] not in seen:
                    seen.add(dependency["pkg"])
                    queue.append(dependency["pkg"])
        for package in (packages[p] for p in seen - ours):
            licence = package["license"]
            if not licence and not package["license_file"]:
                fail(f"{package['name']} {package['version']} names no licence; ask its author")
            found[package["id"]] = Crate(
                package["name"], package["version"], plain(licence or "see its file"),
                Path(package["manifest_path"]).parent, package["license_file"],
            )
    return sorted(found.values(), key=lambda crate: (crate.name, crate.version))


def plain(licence: str) -> str:
    """An expression as SPDX writes it now: older crates part alternatives by a slash."""
    return re.sub(r"\s*/\s*", " OR ", licence)


def page(all_crates: list[Crate]) -> str:
    """The file."""
    lines = [
        "# Third-party notices",
        "",
        "What others made of `excite`, `excite-worker` and `excite-dispatcher`. Excite itself is under the MIT licence",
        "([LICENSE](LICENSE)). Release archives and images hold the texts of all licences, in `THIRD-PARTY-LICENSES.txt`.",
        "",
        "`python3 tests/ops/release/notices.py` makes this file; change nothing here by hand.",
        "",
        "## Parts that are no crates",
        "",
        "| what | version | licence | where | text |",
        "|---|---|---|---|---|",
    ]
    for part in materials():
        text = f"[here]({part.text})" if part.text else ""
        lines.append(f"| {part.name} | {part.version} | {part.licence} | {part.where} | {text} |")
    lines += [
        "",
        f"## Crates ({len(all_crates)})",
        "",
        "From crates.io. Texts are files of the crate: "
        "`https://docs.rs/crate/NAME/VERSION/source/TEXT`. Where none is",
        "named, the crate holds none; `https://crates.io/crates/NAME` names its authors.",
        "",
        "| crate | version | licence | texts |",
        "|---|---|---|---|",
    ]
    for crate in all_crates:
        names = [path.relative_to(crate.folder).as_posix() for path in crate.texts()]
        lines.append(f"| {crate.name} | {crate.version} | {crate.licence} | {', '.join(names)} |")
    return "\n".join(lines) + "\n"


def texts(all_crates: list[Crate]) -> str:
    """All licences; a text that several crates have is there once."""
    holders: dict[str, list[str]] = {}
    for part in materials():
        if part.text:
            text = (ROOT / part.text).read_text()
            holders.setdefault(text.strip(), []).append(f"{part.name} {part.version}")
    for crate in all_crates:
        for path in crate.texts():
            text = path.read_text(errors="replace").replace("\r\n", "\n").strip()
            holders.setdefault(text, []).append(f"{crate.name} {crate.version}")
    rule = "=" * 100
    parts = [f"{rule}\n{', '.join(sorted(set(names)))}\n{rule}\n\n{text}\n"
             for text, names in sorted(holders.items(), key=lambda item: sorted(item[1]))]
    return "Licences of what others made of Excite's programs.\n\n" + "\n".join(parts)


def main() -> None:
    """Reads the command line and does what it says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--check", action="store_true",
                        help=f"write nothing; exit status 1 if {NOTICES} is not up to date")
    parser.add_argument("--texts", type=Path, metavar="FILE",
                        help="write the texts of all licences to this file instead")
    args = parser.parse_args()
    all_crates = crates()
    if args.texts:
        args.texts.write_text(texts(all_crates))
        print(f"{args.texts}: the licences of {len(all_crates)} crates")
        return
    target, made = ROOT / NOTICES, page(all_crates)
    if not args.check:
        target.write_text(made)
        print(f"{NOTICES}: {len(all_crates)} crates")
        return
    old = target.read_text() if target.is_file() else ""
    if old != made:
        differ = sorted(set(made.splitlines()) ^ set(old.splitlines()))
        shown = "\n".join(f"  {line}" for line in differ[:10])
        fail(f"{NOTICES} is not what the lock file asks for; run `python3 "
             f"tests/ops/release/notices.py`. Lines that differ:\n{shown}")
    print(f"{NOTICES}: up to date, {len(all_crates)} crates")


if __name__ == "__main__":
    main()
