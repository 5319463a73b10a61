#!/usr/bin/env python3
"""Checks the Helm chart without a cluster: a line a check, exit status 1 if one fails, 3 if its tools cannot be had.

Helm itself renders it; what it needs is fetched once from package registries into target/ops/chart.
Each check is a program of its own, too.
"""

from __future__ import annotations

import argparse
import functools
import sys

import environment

environment.enter()

import golden  # noqa: E402
import lint  # noqa: E402
import policy  # noqa: E402
import readme  # noqa: E402
import references  # noqa: E402
import refusals  # noqa: E402
import schemas  # noqa: E402
import scripts  # noqa: E402
import settings  # noqa: E402
from environment import SetupError  # noqa: E402
from helm import Helm  # noqa: E402
from report import run  # noqa: E402

CHECKS = {
    "lint": lint,
    "schemas": schemas,
    "golden": golden,
    "refusals": refusals,
    "policy": policy,
    "settings": settings,
    "scripts": scripts,
    "references": references,
    "readme": readme,
}


def main() -> int:
    """All of them, or those that are named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("check", nargs="*", help=f"only these: {', '.join(CHECKS)}")
    named = parser.parse_args().check
    unknown = [name for name in named if name not in CHECKS]
    if unknown:
        parser.error(f"there is no check `{unknown[0]}`; use {', '.join(CHECKS)}")
    try:
        helm = Helm()
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    failed = [
        name
        for name in named or CHECKS
        if not run(name, functools.partial(CHECKS[name].check, helm))
    ]
    print(f"FAILED: {', '.join(failed)}" if failed else "all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
