"""How a check tells what it found: a line for each step, and an exit status."""

from __future__ import annotations

import time
from collections.abc import Callable


class Failed(Exception):
    """A step found a fault; its text names what, where and the remedy."""


class Skipped(Exception):
    """A step cannot be taken here; its text says why."""


class Report:
    """Takes steps one after the other; a fault ends none of the others."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.skipped: list[str] = []

    def step(self, name: str, act: Callable[[], str]) -> bool:
        """Takes a step, prints its line, and says whether it went well."""
        start = time.monotonic()
        try:
            word, detail = "ok", act()
        except Skipped as why:
            word, detail = "skipped", str(why)
            self.skipped.append(name)
        except Failed as fault:
            word, detail = "FAILED", str(fault)
            self.failed.append(name)
        seconds = time.monotonic() - start
        print(f"{word:<8} {name}: {detail} ({seconds:.1f} s)", flush=True)
        return word == "ok"

    def status(self) -> int:
        """What to end with; says which steps failed."""
        if self.failed:
            print(f"FAILED: {', '.join(self.failed)}")
            return 1
        print("all passed" + (f"; skipped: {', '.join(self.skipped)}" if self.skipped else ""))
        return 0
