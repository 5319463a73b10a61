"""The commands of docs/runbooks.md that need no Kubernetes, run as they stand there."""

from __future__ import annotations

import re

import page
from cluster import Cluster, jobs
from processes import Failed

PROGRAMS = ("excite", "excite-dispatcher", "rabbitmqctl", "rabbitmq-diagnostics", "redis-cli")
# Commands that are not run, with the reason.
LEFT_OUT = {
    "excite dead": "run while there are dead jobs",
    "redis-cli -u URL --latency": "does not end",
}
# Programs that the text only names.
NAMES = {*PROGRAMS, "excite submit"}


def found() -> list[str]:
    """Commands in indented lines and in backticks, each once."""
    text = page.RUNBOOKS.read_text()
    lines = re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    spans = re.findall(r"`([^`]+)`", re.sub(r"\n(?!\n)", " ", text))
    words = [" ".join(line.split("#")[0].split()) for line in lines + spans]
    return list(dict.fromkeys(line for line in words if line.split()[0] in PROGRAMS and line not in NAMES))


def run_all(cluster: Cluster) -> str:
    """Runs each against the cluster; fails with all that did not end well."""
    file = cluster.folder / "prompts.jsonl"
    file.write_text('{"prompt": "a cat and a frog"}\n')
    faults: list[str] = []
    tried = 0
    for command in found():
        if any(command == left or command.startswith(f"{left} ") for left in LEFT_OUT) or "..." in command:
            continue
        # Batches are steered, so each command gets its own.
        batch = cluster.submit(jobs(2, 4)) if " ID" in command else ""
        words = command.split("|")[0].split()
        values = {"ID": batch, "FILE": str(file), "URL": cluster.redis}
        done = cluster.run(*(values.get(word, word) for word in words))
        tried += 1
        if done.returncode != 0:
            faults.append(f"`{command}` ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-400:]}")
    if not tried:
        raise Failed("docs/runbooks.md has no command of Excite, RabbitMQ or Redis")
    if faults:
        raise Failed("\n      ".join(faults))
    return f"{tried} commands"
