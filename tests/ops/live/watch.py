"""Prometheus with the chart's rules, Alertmanager with the chart's example, and who is told by it."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml

import page
import shorten
from cluster import GUIDED, Cluster
from processes import Failed, get, get_json, until

NAMESPACE = "live"
EXAMPLE = page.ROOT / "charts/excite/files/alertmanager.example.yaml"


@dataclass(frozen=True)
class Told:
    """What a receiver was told."""

    at: float
    receiver: str
    alert: str
    # `firing` or `resolved`.
    status: str
    severity: str
    summary: str


class Receiver:
    """A webhook that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        told = self.told

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for alert in body["alerts"]:
                    labels = alert["labels"]
                    told.append(Told(time.monotonic(), self.path.strip("/"), labels["alertname"], alert["status"],
                                     labels.get("severity", ""), alert["annotations"].get("summary", "")))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def end(self) -> None:
        """Stops listening."""
        self.server.shutdown()
        self.server.server_close()


class Watch:
    """Prometheus, Alertmanager and the receiver of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.receiver = Receiver()
        self.prometheus = cluster.url("prometheus")
        self.alertmanager = cluster.url("alertmanager")
        severities = {rule.name: rule.labels["severity"] for rule in page.rules() if rule.alert}
        # As the example has it; who is told of what is compared with it.
        self.receivers = {name: {"page": "pager", "ticket": "tickets"}.get(severity) for name, severity in severities.items()}

    def start(self) -> None:
        """Writes the configurations and starts both."""
        folder = self.cluster.folder
        (folder / "rules.yaml").write_text(yaml.safe_dump(shorten.rules()))
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(self._prometheus()))
        (folder / "alertmanager.yaml").write_text(yaml.safe_dump(
            shorten.alertmanager(EXAMPLE.read_text(), self.receiver.url)))
        self.cluster.add("prometheus", [
            "prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/prometheus",
            f"--web.listen-address=127.0.0.1:{self.cluster.ports['prometheus']}",
            f"--query.lookback-delta={shorten.shorter('5m')}", f"--rules.alert.resend-delay={shorten.shorter('1m')}",
            "--rules.alert.for-grace-period=0s"], {})
        self.cluster.add("alertmanager", [
            "prometheus-alertmanager", f"--config.file={folder}/alertmanager.yaml", f"--storage.path={folder}/alertmanager",
            f"--web.listen-address=127.0.0.1:{self.cluster.ports['alertmanager']}", "--cluster.listen-address="], {})
        for name in ("prometheus", "alertmanager"):
            self.cluster.processes[name].start()
        for name in ("prometheus", "alertmanager"):
            self.cluster.processes[name].up(60, lambda: get(f"{self.cluster.url(name)}/-/ready")[0] == 200)

    def _prometheus(self) -> dict[str, Any]:
        def target(name: str, **labels: str) -> dict[str, Any]:
            return {"targets": [f"127.0.0.1:{self.cluster.ports[name]}"],
                    "labels": {"namespace": NAMESPACE, "pod": name, **labels}}

        every = f"{shorten.SCRAPE_SECONDS}s"
        return {
            "global": {"scrape_interval": every, "evaluation_interval": every, "scrape_timeout": every},
            "rule_files": ["rules.yaml"],
            "alerting": {"alertmanagers": [{"static_configs": [
                {"targets": [f"127.0.0.1:{self.cluster.ports['alertmanager']}"]}]}]},
            "scrape_configs": [
                {"job_name": "dispatcher", "static_configs": [target("dispatcher-1"), target("dispatcher-2")]},
                {"job_name": "worker", "static_configs": [target("worker-1", pool="default"),
                                                          target("worker-2", pool=GUIDED)]},
            ],
        }

    def active(self) -> set[str]:
        """Alerts that fire now, in Prometheus."""
        alerts = get_json(f"{self.prometheus}/api/v1/alerts")["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def told_of(self, name: str, status: str, since: float) -> Told | None:
        """What the receiver was told of an alert since then."""
        return next((told for told in self.receiver.told
                     if told.alert == name and told.status == status and told.at >= since), None)

    def fires(self, name: str, since: float, seconds: float) -> float:
        """Waits until the right receiver is told of an alert; after how many seconds it was."""
        told = until(f"Alertmanager tells of {name}; firing: {sorted(self.active())}", seconds,
                     lambda: self.told_of(name, "firing", since))
        if told.receiver != self.receivers[name]:
            raise Failed(f"{name}, severity {told.severity}, was told to `{told.receiver}`, not `{self.receivers[name]}`")
        if "{{" in told.summary or not told.summary:
            raise Failed(f"{name}: its summary is `{told.summary}`")
        return told.at - since

    def resolves(self, name: str, since: float, seconds: float) -> float:
        """Waits until the receiver is told that an alert is over; after how many seconds it was."""
        return until(f"Alertmanager tells that {name} is over", seconds,
                     lambda: self.told_of(name, "resolved", since)).at - since

    def calm(self, seconds: float) -> None:
        """Waits until nothing fires any more."""
        def look() -> bool:
            active = self.active()
            if active:
                raise ValueError(f"{', '.join(sorted(active))} fire")
            return True

        until("no alert fires", seconds, look)

    def others(self, since: float, expected: Iterable[str]) -> list[str]:
        """Alerts beside the expected ones that receivers were told of since then."""
        told = {told.alert for told in self.receiver.told if told.at >= since and told.status == "firing"}
        return sorted(told - set(expected))
