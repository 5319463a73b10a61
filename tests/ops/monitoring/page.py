"""The metrics that there are, read from docs/metrics.md, and the rules, read from the chart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/metrics.md"
RULES = ROOT / "charts/excite/files/rules.yaml"
DASHBOARDS = ROOT / "charts/excite/files/dashboards"
RUNBOOKS = ROOT / "docs/runbooks.md"

# What Prometheus adds to every series: from a target's address, and from Kubernetes where there is one. `pool` is
# what the chart's PodMonitor takes from the pods of workers.
TARGET_LABELS = frozenset({"namespace", "job", "instance", "pod", "pool"})

# Series that the chart records from its values.
CHART_SERIES = {"excite:worker_price_per_hour": frozenset({"pool"})}

ROW = re.compile(r"^\| `(?P<name>excite_\w+)` \| (?P<type>\w+) \| (?P<labels>[^|]*) \| (?P<help>.*) \|$")


@dataclass(frozen=True)
class Metric:
    """A row of the page; one name may have two, of the worker and of the dispatcher."""

    name: str
    type: str
    labels: frozenset[str]
    help: str
    # `worker` or `dispatcher`.
    service: str

    def series(self) -> dict[str, frozenset[str]]:
        """Names of its series in Prometheus, with their labels."""
        if self.type != "histogram":
            return {self.name: self.labels}
        return {
            f"{self.name}_bucket": self.labels | {"le"},
            f"{self.name}_sum": self.labels,
            f"{self.name}_count": self.labels,
        }


def metrics() -> list[Metric]:
    """All rows of docs/metrics.md."""
    found: list[Metric] = []
    service = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            service = "worker" if "worker" in line.lower() else "dispatcher"
        row = ROW.match(line)
        if row:
            labels = frozenset(re.findall(r"`(\w+)`", row["labels"]))
            found.append(Metric(row["name"], row["type"], labels, row["help"], service))
    if not found:
        raise SystemExit(f"error: {PAGE} has no row like | `excite_NAME` | TYPE | LABELS | HELP |")
    return found


def series() -> dict[str, frozenset[str]]:
    """Every series that Excite exports, with its labels."""
    merged: dict[str, frozenset[str]] = {}
    for metric in metrics():
        for name, labels in metric.series().items():
            merged[name] = merged.get(name, frozenset()) | labels
    return merged


@dataclass(frozen=True)
class Rule:
    """A recording rule or an alert."""

    name: str
    expr: str
    alert: bool
    labels: dict[str, str]
    annotations: dict[str, str]


def rules() -> list[Rule]:
    """All rules of the chart, in their order."""
    document = yaml.safe_load(RULES.read_text())
    return [
        Rule(
            name=rule.get("alert") or rule["record"],
            expr=rule["expr"],
            alert="alert" in rule,
            labels=rule.get("labels", {}),
            annotations=rule.get("annotations", {}),
        )
        for group in document["groups"]
        for rule in group["rules"]
    ]
