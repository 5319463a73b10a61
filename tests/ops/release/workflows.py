#!/usr/bin/env python3
"""Checks .github/workflows: what they run is in this repository, and they may do little.

Each line of a `run` is a script of the repository with options that it knows, `cargo xtask` with a
task that exists, or one of a few set-up commands. Actions are pinned to a version or commit, and no
job has more rights than it names.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

try:
    import yaml
except ModuleNotFoundError:
    print("error: Python has no module `yaml`; install Debian's python3-yaml or PyPI's pyyaml", file=sys.stderr)
    sys.exit(3)

ROOT = Path(__file__).resolve().parents[3]
PINNED = re.compile(r"[\w.-]+/[\w./-]+@(v\d+\.\d+\.\d+|[0-9a-f]{40})")
# What brings tools; everything else has to be ours.
SET_UP = (
    ("apt-get", "update"),
    ("apt-get", "install"),
    ("rustup", "component", "add"),
)
# Who may write, and what: releases alone.
MAY_WRITE = {"release.yaml": {"contents", "packages"}}


def tasks(root: Path) -> set[str]:
    """The tasks of `cargo xtask`, read from its command line."""
    text = (root / "crates/xtask/src/main.rs").read_text()
    body = re.search(r"^enum Task \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    if not body:
        sys.exit("error: crates/xtask/src/main.rs has no `enum Task`; mend this check")
    names = re.findall(r"^    ([A-Z]\w*)", body[1], re.MULTILINE)
    return {re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower() for name in names}


class Checker:
    """Collects what is wrong."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tasks = tasks(root)
        self.help: dict[str, str] = {}
        self.faults: list[str] = []
        self.commands = 0

    def fault(self, place: str, message: str) -> None:
        self.faults.append(f"{place}: {message}")

    def workflow(self, path: Path) -> None:
        """Looks at one file."""
        place = path.name
        document = yaml.safe_load(path.read_text())
        # YAML 1.1 takes the key `on` for a truth value.
        triggers = document.get("on", document.get(True)) or {}
        if "pull_request_target" in triggers:
            self.fault(place, "on: `pull_request_target` gives strangers our rights; use "
                              "`pull_request`")
        if document.get("permissions") != {"contents": "read"}:
            self.fault(place, "permissions: it is "
                              f"`{document.get('permissions')}`; write `contents: read` at the top "
                              "and more in the job that needs it")
        for name, job in document["jobs"].items():
            self.job(path.name, f"{place}: {name}", job)

    def job(self, file: str, place: str, job: dict) -> None:
        """Looks at one job."""
        if "timeout-minutes" not in job:
            self.fault(place, "timeout-minutes: it is missing; say how long the job may take")
        rights = job.get("permissions", {})
        if not isinstance(rights, dict):
            self.fault(place, f"permissions: it is `{rights}`; name each right")
            rights = {}
        for right, value in rights.items():
            if value == "write" and right not in MAY_WRITE.get(file, set()):
                self.fault(place, f"permissions: `{right}: write` is not for this file; use `read`")
        for number, step in enumerate(job["steps"], 1):
            where = f"{place}: step {number}"
            if "uses" in step and not PINNED.fullmatch(step["uses"]):
                self.fault(where, f"uses: `{step['uses']}` is not pinned; write "
                                  "`owner/name@vMAJOR.MINOR.PATCH` or a commit")
            for line in step.get("run", "").replace("\\\n", " ").splitlines():
                if line.strip() and not line.strip().startswith("#"):
                    self.line(where, line)

    def line(self, where: str, line: str) -> None:
        """Looks at one command."""
        self.commands += 1
        if "${{" in line:
            self.fault(where, f"run: `{line}` has an expression, which becomes part of the script; "
                              "hand it over in `env`")
            return
        words = shlex.split(line)
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        if any(set(word) <= set("();<>|&") for word in lexer):
            self.fault(where, f"run: `{line}` puts commands together; write a step for each, or a "
                              "script")
            return
        if any(tuple(words[: len(begin)]) == begin for begin in SET_UP):
            return
        if words[:2] == ["cargo", "xtask"]:
            if len(words) < 3 or words[2] not in self.tasks:
                self.fault(where, f"run: `{line}` names no task; there are "
                                  f"{', '.join(sorted(self.tasks))}")
            return
        interpreted = words[0] in ("python3", "sh", "bash")
        script = words[1] if interpreted and len(words) > 1 else words[0]
        path = self.root / script
        if not path.is_file() or not path.resolve().is_relative_to(self.root):
            self.fault(where, f"run: `{line}` is no script of this repository, no `cargo xtask` and "
                              "no set-up; put it into a script")
        elif not interpreted and not os.access(path, os.X_OK):
            self.fault(where, f"run: {script} may not be executed; `chmod +x` it")
        elif words[0] == "python3":
            self.options(where, script, words[2:])

    def options(self, where: str, script: str, words: list[str]) -> None:
        """Looks whether a Python script has the step and the options that are used."""
        step = words[:1] if words and not words[0].startswith("-") else []
        key = " ".join([script, *step])
        if key not in self.help:
            done = subprocess.run([sys.executable, self.root / script, *step, "--help"],
                                  capture_output=True, text=True, check=False)
            if done.returncode != 0:
                self.fault(where, f"run: `{key} --help` ends with {done.returncode}; "
                                  f"{done.stderr.strip().splitlines()[-1:]}")
            self.help[key] = done.stdout
        for word in words[len(step):]:
            option = word.split("=")[0]
            if option.startswith("--") and not re.search(rf"{option}\b", self.help[key]):
                self.fault(where, f"run: `{key}` has no option `{option}`")


def main() -> int:
    """Reads the command line, checks, and gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to look at")
    checker = Checker(parser.parse_args().root.resolve())
    files = sorted((checker.root / ".github/workflows").glob("*.y*ml"))
    if not files:
        sys.exit("error: .github/workflows has no workflow")
    for path in files:
        checker.workflow(path)
    for fault in checker.faults:
        print(f"error: {fault}", file=sys.stderr)
    if not checker.faults:
        print(f"{len(files)} workflows, {checker.commands} commands: all of this repository")
    return 1 if checker.faults else 0


if __name__ == "__main__":
    sys.exit(main())
