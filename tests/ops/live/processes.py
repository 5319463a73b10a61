"""Processes that end with this program, however it ends, and ports and waiting for them."""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

# Below what systems give to outgoing connections, one of which could sit on the port of a server that is down; and not
# those from which the tests of the crates take theirs.
PORTS = range(24000, 32000)
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)
TAIL = 1500

Found = TypeVar("Found")


class Failed(Exception):
    """A step did not see what it should."""


def free_port(taken: set[int]) -> int:
    """A port that nothing listens on, and that was not given before."""
    for port in random.sample(PORTS, len(PORTS)):
        if port in taken:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        taken.add(port)
        return port
    raise Failed(f"none of the ports {PORTS.start} to {PORTS.stop - 1} is free; end what listens there")


def until(what: str, seconds: float, look: Callable[[], Found | None]) -> Found:
    """What `look` finds; fails after so many seconds. What it raises counts as not yet."""
    deadline = time.monotonic() + seconds
    last = "nothing"
    while True:
        try:
            found = look()
            if found:
                return found
            last = "not yet" if found is None else repr(found)
        except (OSError, ValueError, KeyError) as error:
            last = str(error)
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds:.0f} s; last: {last}")
        time.sleep(0.2)


def get(url: str, seconds: float = 10) -> tuple[int, str]:
    """Status and text of an answer, whichever status it has."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def get_json(url: str) -> Any:
    """The document at a URL."""
    status, text = get(url)
    if status != 200:
        raise ValueError(f"{url}: {status}: {text[:300]}")
    return json.loads(text)


def connects(port: int) -> bool:
    """Whether something takes connections."""
    with socket.create_connection(("127.0.0.1", port), timeout=2):
        return True


def _die_with_parent() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A program that can be killed, stopped and started again with the same settings."""

    def __init__(self, name: str, argv: list[str | Path], env: dict[str, str], log: Path) -> None:
        self.name = name
        self.argv = [str(word) for word in argv]
        # Nothing of the settings of whoever runs this.
        self.env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **env}
        self.log = log
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it; what it says is added to its log."""
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                self.argv, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.log.parent, start_new_session=True, preexec_fn=_die_with_parent)

    def up(self, seconds: float, look: Callable[[], Any]) -> None:
        """Waits until it does what `look` wants."""
        def alive() -> Any:
            if self.child is None or self.child.poll() is not None:
                raise Failed(f"{self.name} ended; it said:\n{self.tail()}")
            return look()

        try:
            until(f"{self.name} is up", seconds, alive)
        except Failed as error:
            raise Failed(f"{error}\nThe end of what {self.name} said:\n{self.tail()}") from None

    def kill(self) -> None:
        """Kills it and all that it started, as a power cut would."""
        self._end(signal.SIGKILL, 10)

    def stop(self, seconds: float = 30) -> None:
        """Asks it to end, and waits."""
        self._end(signal.SIGTERM, seconds)

    def _end(self, number: signal.Signals, seconds: float) -> None:
        child, self.child = self.child, None
        if child is None:
            return
        try:
            os.killpg(child.pid, number) if number == signal.SIGKILL else child.send_signal(number)
            child.wait(timeout=seconds)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
        finally:
            # What the program started, too.
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
            child.wait(timeout=10)

    def tail(self) -> str:
        """The end of what it said."""
        return self.log.read_text(errors="replace")[-TAIL:] if self.log.exists() else ""
