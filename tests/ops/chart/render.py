#!/usr/bin/env python3
"""Renders the chart with Helm itself and no cluster, and prints all objects as YAML.

python3 tests/ops/chart/render.py charts/excite/examples/laptop.yaml
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import environment

environment.enter()

import yaml  # noqa: E402

from charts import load, plain  # noqa: E402
from helm import Helm, HelmError  # noqa: E402


def main() -> int:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("values", type=Path, help="a file of values")
    parser.add_argument("--notes", action="store_true", help="print the notes instead")
    args = parser.parse_args()
    try:
        release = Helm().render(plain(), load(args.values))
    except (OSError, HelmError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(release.notes if args.notes else yaml.safe_dump_all(release.objects), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
