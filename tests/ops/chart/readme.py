#!/usr/bin/env python3
"""Writes the values into charts/excite/README.md, from values.yaml and its comments. With --check
nothing is written, and the exit status says whether the page is as it would be."""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass, field

import environment

environment.enter()

from charts import load  # noqa: E402
from environment import CHART  # noqa: E402
from report import Failed, run  # noqa: E402

VALUES, PAGE = CHART / "values.yaml", CHART / "README.md"
BEGIN, END = "<!-- values: made by tests/ops/chart/readme.py -->", "<!-- end of values -->"
MEND = "python3 tests/ops/chart/readme.py"


@dataclass
class Key:
    """A key with its comment."""

    path: list[str]
    line: int
    comment: list[str]
    default: object
    children: list[Key] = field(default_factory=list)

    def name(self) -> str:
        """As people write it."""
        return ".".join(self.path)


def keys() -> list[Key]:
    """The keys of values.yaml at the top, with those below. A key whose own keys have no comments
    is described as a whole."""
    top: list[Key] = []
    stack: list[Key] = []
    comment: list[str] = []
    values = load(VALUES)
    for number, line in enumerate(VALUES.read_text().splitlines(), 1):
        stripped = line.strip()
        if not stripped:
            comment = []
            continue
        if stripped.startswith("#"):
            comment.append(stripped[1:].removeprefix(" "))
            continue
        found = re.match(r"( *)([\w./-]+):", line)
        depth = len(found[1]) // 2 if found else len(line)
        # Deeper: inside a list.
        if found and depth <= len(stack):
            stack = stack[:depth]
            path = [*(key.path[-1] for key in stack), found[2]]
            key = Key(path, number, comment, at(values, path))
            (stack[-1].children if stack else top).append(key)
            stack.append(key)
        comment = []
    for key in top:
        described(key)
    return top


def described(key: Key) -> bool:
    """Whether it or anything below has a comment; what has none below is one value."""
    below = [described(child) for child in key.children]
    if not any(below):
        key.children = []
    return bool(key.comment) or any(below)


def at(values: dict, path: list[str]) -> object:
    """The value of a path."""
    found: object = values
    for part in path:
        found = found[part]  # type: ignore[index]
    return found


def faults(all_keys: list[Key]) -> list[str]:
    """Keys without a comment, wherever those beside them have one."""
    lacking = []
    for key in all_keys:
        if not key.comment and not key.children:
            lacking.append(
                f"values.yaml:{key.line}: `{key.name()}` has no comment; write what it is"
            )
        lacking += faults(key.children)
    return lacking


def rows(key: Key) -> list[str]:
    """Rows of a table: those below, or itself."""
    text = " ".join(part for part in key.comment if part).replace("|", "\\|")
    if key.children:
        # What is said of the top stands above the table.
        own = [f"| `{key.name()}` | | {text} |"] if text and len(key.path) > 1 else []
        return [*own, *(row for child in key.children for row in rows(child))]
    default = json.dumps(key.default, ensure_ascii=False).replace("|", "\\|")
    return [f"| `{key.name()}` | `{default}` | {text} |"]


def prose(comment: list[str]) -> list[str]:
    """A comment as paragraphs and examples."""
    return [line.rstrip() for line in comment]


def section() -> str:
    """What stands between the marks."""
    head = ["| key | default | |", "|---|---|---|"]
    top = keys()
    lacking = faults(top)
    if lacking:
        raise Failed(lacking)
    lines = [BEGIN, "", *head, *(row for key in top if is_plain(key) for row in rows(key))]
    for key in top:
        if is_plain(key):
            continue
        lines += ["", f"### `{key.name()}`"]
        if key.comment:
            lines += ["", *prose(key.comment)]
        if key.children:
            lines += ["", *head, *rows(key)]
    return "\n".join([*lines, "", END])


def is_plain(key: Key) -> bool:
    """Whether a row says all of a key at the top."""
    return not key.children and "" not in key.comment


def page() -> tuple[str, str]:
    """The page as it is, and as it should be."""
    old = PAGE.read_text()
    if old.count(BEGIN) != 1 or old.count(END) != 1:
        raise Failed(f"README.md lacks `{BEGIN}` and `{END}`; put them around its values")
    before, _, rest = old.partition(BEGIN)
    return old, before + section() + rest.partition(END)[2]


def check(_: object = None) -> str:
    """Compares."""
    old, new = page()
    if old != new:
        wrong = next(
            (
                number
                for number, (a, b) in enumerate(
                    zip(old.splitlines(), new.splitlines(), strict=False), 1
                )
                if a != b
            ),
            min(old.count("\n"), new.count("\n")) + 1,
        )
        raise Failed(f"README.md:{wrong}: it is not what values.yaml makes of it; run `{MEND}`")
    return f"{sum(len(rows(key)) for key in keys())} values, each with its comment"


def write() -> str:
    """Writes."""
    old, new = page()
    PAGE.write_text(new)
    return "README.md is as it was" if old == new else "README.md is written"


def main() -> int:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split(". With", maxsplit=1)[0] + "."
    )
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    return 0 if run("readme", check if parser.parse_args().check else write) else 1


if __name__ == "__main__":
    sys.exit(main())
