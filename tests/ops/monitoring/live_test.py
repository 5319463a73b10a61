#!/usr/bin/env python3
"""Tries live.py with a Prometheus of its own, which scrapes what docs/metrics.md lists from this program.

With every metric there must be data for every panel and rule. Without one that should always be there live.py must fail
and name it; without one that appears in case of trouble it must not.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import itertools
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import yaml

import page
import tools

LIVE = Path(__file__).parent / "live.py"
# How long data may take to be there.
PATIENCE_SECONDS = 120

# Values of labels, of one metric where it has others than the rest.
VALUES = {
    "model": ["sd14"], "pool": ["default"], "kind": ["succeeded", "failed", "started"], "service": ["worker"],
    "version": ["0.1.0"], "outcome": ["succeeded"], "op": ["save"], "result": ["ok"], "action": ["halve"],
    "stage": ["queue", "denoise", "upload"], "method": ["GET"], "route": ["/v1/batches"], "status": ["200", "503"],
    "state": ["active", "paused"], "lane": ["bulk", "express"], "reason": ["capacity", "poison"], "class": ["transient"],
    "excite_build_info.kind": ["cpu-avx2-f32"], "excite_redeliveries_total.kind": ["skipped"],
    "excite_accept_total.result": ["accepted", "failed"], "excite_published_total.result": ["ok", "failed"],
    "excite_reuse_total.result": ["missing"],
    "excite_queue_jobs.state": ["ready", "waiting", "queued", "running", "retrying"],
}


def labelled(metric: page.Metric) -> Iterator[dict[str, str]]:
    """Every combination of a metric's labels."""
    names = sorted(metric.labels)
    missing = [name for name in names if name not in VALUES and f"{metric.name}.{name}" not in VALUES]
    if missing:
        sys.exit(f"error: no value for the label `{missing[0]}` of {metric.name}; add one to VALUES")
    lists = [VALUES.get(f"{metric.name}.{name}") or VALUES[name] for name in names]
    return (dict(zip(names, values, strict=True)) for values in itertools.product(*lists))


def line(name: str, labels: dict[str, str], value: float) -> str:
    """A line of the text format."""
    inner = ",".join(f'{label}="{text}"' for label, text in labels.items())
    return f"{name}{{{inner}}} {value}" if inner else f"{name} {value}"


def text(service: str, leads: bool, seconds: float, without: set[str]) -> str:
    """What a program serves at /metrics after so many seconds, in which it did something."""
    lines = []
    for metric in page.metrics():
        if metric.service != service or metric.name in without:
            continue
        lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.type}"]
        for labels in labelled(metric):
            if metric.type == "histogram":
                for le, share in (("0.5", 0.4), ("5", 0.9), ("+Inf", 1)):
                    lines.append(line(f"{metric.name}_bucket", {**labels, "le": le}, int(seconds * 10 * share)))
                lines.append(line(f"{metric.name}_sum", labels, seconds * 10))
                lines.append(line(f"{metric.name}_count", labels, int(seconds * 10)))
            elif metric.type == "counter":
                lines.append(line(metric.name, labels, 100 + seconds * 10))
            else:
                lines.append(line(metric.name, labels, int(leads) if metric.name == "excite_leader" else 1))
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def programs(without: set[str]) -> Iterator[int]:
    """Serves two dispatchers and a worker; its port."""
    began = time.monotonic()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            service, _, number = self.path.strip("/").partition("-")
            body = text(service, number == "1", time.monotonic() - began, without).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def prometheus(port: int) -> Iterator[str]:
    """Runs a Prometheus with the rules of the chart that scrapes the programs; its address."""
    def job(name: str, path: str, **labels: str) -> dict:
        own = {"namespace": "images", "instance": path, "pod": path, **labels}
        return {"job_name": path, "metrics_path": f"/{path}",
                "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {**own, "job": name}}]}

    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "prometheus.yml"
        config.write_text(yaml.safe_dump({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(page.RULES)],
            "scrape_configs": [job("dispatcher", "dispatcher-1"), job("dispatcher", "dispatcher-2"),
                               job("worker", "worker-1", pool="default")],
        }))
        with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as free:
            listen = f"127.0.0.1:{free.server_port}"
        log = (Path(folder) / "log").open("w+")
        process = subprocess.Popen(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address={listen}"],
            stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 30
            while not ready(f"http://{listen}"):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    sys.exit(f"error: Prometheus does not start:\n{log.read()[-1500:]}")
                time.sleep(0.2)
            yield f"http://{listen}"
        finally:
            process.terminate()
            process.wait(timeout=20)
            log.close()


def ready(url: str) -> bool:
    """Whether a Prometheus answers."""
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def live(url: str) -> tuple[int, str]:
    """What live.py says, once it is content or says twice the same."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    last: list[str] = []
    while True:
        done = subprocess.run([sys.executable, LIVE, url], capture_output=True, text=True, check=False, timeout=120)
        faults = sorted(done.stderr.splitlines())
        if done.returncode == 0 or faults == last or time.monotonic() > deadline:
            return done.returncode, done.stdout + done.stderr
        last = faults
        time.sleep(8)


def expect(right: bool, title: str, said: str) -> None:
    """Reports a case; ends if it is not as it should be."""
    print(f"{'ok' if right else 'FAIL':5} {title}", flush=True)
    if not right:
        sys.exit(said)


def main() -> int:
    """Runs both cases."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    tools.have("prometheus")
    with programs(set()) as port, prometheus(port) as url:
        status, said = live(url)
        print(said.strip().splitlines()[-1])
        quiet = [row for row in said.splitlines() if row.startswith("quiet")]
        allowed = ("no pool has a price", "younger than an hour")
        unexpected = [row for row in quiet if not any(word in row for word in allowed)]
        expect(status == 0 and not unexpected, "With every metric there is data for every panel and rule.", said)
    with programs({"excite_steps_total", "excite_dead_total"}) as port, prometheus(port) as url:
        status, said = live(url)
        errors = [row for row in said.splitlines() if row.startswith("error")]
        expect(status == 1 and any("panel `Steps`" in row for row in errors), "A metric that is not there is named.", said)
        expect(not any("excite_dead" in row for row in errors) and "no job was given up" in said,
               "One that appears in case of trouble is excused.", said)
        expect(all("step" in row or "waste" in row for row in errors), "Nothing else is named.", said)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
