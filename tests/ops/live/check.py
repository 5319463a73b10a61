#!/usr/bin/env python3
"""Lets a real Prometheus and Alertmanager watch real processes of Excite, under load and while servers are away.

Starts RabbitMQ, Redis, an S3 server, two dispatchers, two workers, Prometheus and Alertmanager on ports of its own, with
the rules of the chart made faster by the factor of shorten.py. Then looks at what operators rely on: panels and rules have
data, no alert fires while all is well, the right one fires and ends for each trouble, probes say what docs/operations.md
says, no job is lost, and the commands of docs/runbooks.md run.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[2]
sys.path[:0] = [str(FOLDER), str(FOLDER.parent / "monitoring")]

import steps  # noqa: E402  (its folder, and that of what it shares, are known only now)
import tools  # noqa: E402
from cluster import Cluster  # noqa: E402
from processes import Failed  # noqa: E402
from watch import Watch  # noqa: E402

PROGRAMS = ("excite", "excite-worker", "excite-dispatcher", "excite-s3")


def binaries(given: Path | None) -> Path:
    """The folder with the programs; ends with 3 if they are not built."""
    folders = [given] if given else [ROOT / "target/release", ROOT / "target/debug"]
    for folder in folders:
        if all((folder / name).is_file() for name in PROGRAMS):
            return folder.resolve()
    print(f"error: {', '.join(PROGRAMS)} are not in {' or '.join(map(str, folders))}; run "
          "`cargo build --workspace --bins`, or name their folder with --binaries", file=sys.stderr)
    sys.exit(3)


def servers() -> None:
    """Ends with 3 if RabbitMQ or Redis is not installed."""
    there = {"rabbitmq-server": Path("/usr/lib/rabbitmq/bin/rabbitmq-server").exists(),
             "redis-server": shutil.which("redis-server") is not None}
    missing = [name for name, found in there.items() if not found]
    if missing:
        print(f"error: there is no {' or '.join(missing)}; run `sudo apt-get install {' '.join(missing)}`", file=sys.stderr)
        sys.exit(3)


def main() -> int:
    """Runs the steps; the first that fails ends it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binaries", type=Path, metavar="FOLDER",
                        help="folder of the built programs [default: target/release, else target/debug]")
    parser.add_argument("--load-seconds", type=int, default=60, metavar="N", help="how long the load lasts [default: 60]")
    parser.add_argument("--keep", action="store_true", help="leave logs and data in target/ops")
    args = parser.parse_args()
    programs = binaries(args.binaries)
    servers()
    tools.have("prometheus", "promtool", "amtool")
    parent = ROOT / "target/ops"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="live-", dir=parent))
    cluster = Cluster(folder, programs)
    watch = Watch(cluster)
    began = time.monotonic()
    try:
        for title, step in steps.all_steps(cluster, watch, args.load_seconds):
            if not run(title, step):
                return 1
        print(f"all well, {time.monotonic() - began:.0f} s")
        return 0
    finally:
        cluster.end()
        watch.receiver.end()
        if args.keep:
            print(f"logs and data: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def run(title: str, step: Callable[[], str | None]) -> bool:
    """Does a step and reports it."""
    began = time.monotonic()
    try:
        said = step()
    except (Failed, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        print(f"FAIL  {title} ({time.monotonic() - began:.1f} s)", flush=True)
        print(f"      {error}", file=sys.stderr, flush=True)
        return False
    print(f"ok    {title} ({time.monotonic() - began:.1f} s){': ' + said if said else ''}", flush=True)
    return True


if __name__ == "__main__":
    raise SystemExit(main())
