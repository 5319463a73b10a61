#!/usr/bin/env python3
"""What the chart makes of each example, as it was looked at last: golden/NAME.yaml, and the notes
in golden/NAME.txt. With --write they are written anew; look at the difference before it is kept.

Version, rules and dashboards are fixed ones, so that neither a release nor an alert changes these.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

import environment

environment.enter()

import yaml  # noqa: E402

from charts import COPIES, VERSION, examples  # noqa: E402
from environment import ROOT  # noqa: E402
from helm import Helm  # noqa: E402
from report import Failed, run  # noqa: E402

GOLDEN = Path(__file__).with_name("golden")
MEND = "python3 tests/ops/chart/golden.py --write"
# Lines of a difference that are printed.
SHOWN = 12


class Dumper(yaml.CSafeDumper):
    """Writes as people do: text of several lines as it is, lists indented, nothing by reference."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def text_of(dumper: Dumper, text: str) -> yaml.ScalarNode:
    """A text."""
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_representer(str, text_of)


def files(helm: Helm) -> dict[str, str]:
    """All golden files by name."""
    chart = COPIES.copy(version=VERSION, fixtures=True)
    made = {}
    for name, values in examples().items():
        # A cluster that has no operators gets other notes.
        bare = "autoscaling" not in values and "monitoring" not in values
        release = helm.render(chart, values, groups={} if bare else None)
        made[f"{name}.yaml"] = yaml.dump_all(
            release.objects, Dumper=Dumper, width=1000, allow_unicode=True, explicit_start=True
        )
        made[f"{name}.txt"] = release.notes.strip() + "\n"
    return made


def check(helm: Helm | None = None) -> str:
    """Compares."""
    made, faults = files(helm or Helm()), []
    there = {path.name: path.read_text() for path in GOLDEN.iterdir()} if GOLDEN.exists() else {}
    for name in sorted(made.keys() | there.keys()):
        old, new = there.get(name, ""), made.get(name, "")
        if old == new:
            continue
        lines = difflib.unified_diff(
            old.splitlines(), new.splitlines(), "golden", "now", n=1, lineterm=""
        )
        shown = [line for line in lines if not line.startswith(("---", "+++"))]
        more = [f"... {len(shown) - SHOWN} more lines"] if len(shown) > SHOWN else []
        what = "\n        ".join([*shown[:SHOWN], *more])
        faults.append(f"{name} differs; `{MEND}` if it should:\n        {what}")
    if faults:
        raise Failed(faults)
    return f"{len(made)} files as they were"


def write(helm: Helm) -> str:
    """Writes all of them."""
    GOLDEN.mkdir(exist_ok=True)
    made = files(helm)
    for path in GOLDEN.iterdir():
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (GOLDEN / name).write_text(text)
    return f"{len(made)} files in {GOLDEN.relative_to(ROOT)}"


def main() -> int:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--write", action="store_true", help="write them instead of comparing")
    act = write if parser.parse_args().write else check
    return 0 if run("golden", lambda: act(Helm())) else 1


if __name__ == "__main__":
    sys.exit(main())
