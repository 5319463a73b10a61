#!/usr/bin/env python3
"""Runs the shell scripts of the chart's Jobs and of its test against a program that stands for
`excite`: what they call, and that they fail when they should."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import environment

environment.enter()

from charts import load, plain, pods  # noqa: E402
from environment import CHART  # noqa: E402
from helm import Helm  # noqa: E402
from report import Failed, main  # noqa: E402

VALUES = Path(__file__).with_name("fixtures") / "values/everything.yaml"
DIGEST = "aa".rjust(64, "0")
# Says what it was called with, and does as it is told by the environment.
EXCITE = """#!/bin/sh
echo "$*" >>"$CALLS"
case "$1 $2" in
"submit "*) cat "$2" >>"$CALLS"; echo 0193a1b2 ;;
"batch watch") exit "${WATCH:-0}" ;;
"batch fetch") mkdir -p "$5"; for i in $IMAGES; do touch "$5/$i.png" "$5/$i.json"; done ;;
"batch delete") exit "${DELETE:-0}" ;;
"model check") echo '{"v":1,"name":"x@'"$DIGEST"'"}' ;;
esac
"""


@dataclass
class Case:
    """A run of a script."""

    what: str
    # A part of the name of what has the script.
    of: str
    env: dict[str, str]
    status: int
    # What must be said or called.
    want: list[str]
    # What must not be called any more.
    never: str = "no such call"


CASES = [
    Case(
        "all is well",
        "test",
        {"IMAGES": "a b"},
        0,
        ["a cat and a frog", "--seeds 1", "batch watch 0193a1b2", "--sidecars", "--yes"],
    ),
    Case("a job fails", "test", {"IMAGES": "a b", "WATCH": "3"}, 3, ["watch"], "fetch"),
    Case("an image is lost", "test", {"IMAGES": "a"}, 1, ["1 images are in the store"], "--yes"),
    Case("the token may not delete", "test", {"IMAGES": "a b", "DELETE": "1"}, 0, ["stays"]),
    Case(
        "a model of the hub",
        "model-stable",
        {"DIGEST": DIGEST},
        0,
        [
            "model pull a/b --name Stable_Diffusion.1 --revision 0123456789abcdef --precision f16",
            "model push Stable_Diffusion.1 --name Stable_Diffusion.1 --class Large.1",
        ],
    ),
    Case(
        "another digest",
        "model-stable",
        {"DIGEST": "b" * 64},
        1,
        ["models.Stable_Diffusion.1.digest is", "another one"],
        "model push",
    ),
    Case(
        "the bundled model",
        "model-emoji",
        {},
        0,
        ["model push emoji --name emoji --class default"],
        "model pull",
    ),
    Case(
        "a model on a volume",
        "model-on-a-volume",
        {},
        0,
        ["model push /models/on-a-volume --name on-a-volume --class Large.1"],
        "model pull",
    ),
]


def check(helm: Helm | None = None) -> str:
    """All of it."""
    objects = (helm or Helm()).render(plain(), load(VALUES)).objects
    commands = {
        found["metadata"]["name"]: spec["containers"][0]["command"]
        for found, _, spec in pods(objects)
        if "command" in spec["containers"][0]
    }
    faults, run = [], set()
    for case in CASES:
        name = next(name for name in commands if case.of in name.removeprefix("a-name-that-is-as"))
        run.add(name)
        faults += [
            f"{CHART.name}, {name}, {case.what}: {fault}" for fault in act(case, commands[name])
        ]
    faults += [f"{name} has a script, and no case runs it" for name in commands.keys() - run]
    if faults:
        raise Failed(faults)
    return f"{len(CASES)} runs of {len(commands)} scripts end as they should"


def act(case: Case, command: list[str]) -> list[str]:
    """Runs a script, and says what is not as it should be."""
    with tempfile.TemporaryDirectory(prefix="excite-chart-") as scratch:
        program, calls = Path(scratch) / "excite", Path(scratch) / "calls"
        program.write_text(EXCITE)
        program.chmod(0o755)
        calls.touch()
        words = [word.replace("/tmp/", f"{scratch}/") for word in command]
        env = {"PATH": f"{scratch}:{os.environ['PATH']}", "CALLS": str(calls), **case.env}
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr + calls.read_text()
    faults = [f"it does not say or call `{part}`: {said}" for part in case.want if part not in said]
    if done.returncode != case.status:
        faults.append(f"it ended with {done.returncode}, not {case.status}: {said}")
    if case.never in said:
        faults.append(f"it goes on to `{case.never}`: {said}")
    return faults


if __name__ == "__main__":
    sys.exit(main("scripts", __doc__, check))
