"""How a check tells what it found: one line, and an exit status."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable


class Failed(Exception):
    """A check found faults; each names what, where and the remedy."""

    def __init__(self, faults: list[str] | str) -> None:
        self.faults = [faults] if isinstance(faults, str) else faults
        super().__init__("\n".join(self.faults))


# Faults that are printed of one check.
SHOWN = 20


def run(name: str, check: Callable[[], str]) -> bool:
    """Runs a check, prints its line, and whether it went well."""
    start = time.monotonic()
    try:
        word, detail = "ok", check()
    except Failed as failed:
        word = "FAILED"
        more = len(failed.faults) - SHOWN
        lines = failed.faults[:SHOWN] + ([f"and {more} more"] if more > 0 else [])
        detail = "\n    ".join(["", *lines]).rstrip()
    print(f"{word:<7} {name}: {detail} ({time.monotonic() - start:.1f} s)", flush=True)
    return word == "ok"


def main(name: str, description: str | None, check: Callable[[], str]) -> int:
    """A check as a program of its own."""
    argparse.ArgumentParser(description=description).parse_args()
    return 0 if run(name, check) else 1
