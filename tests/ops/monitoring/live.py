#!/usr/bin/env python3
"""Asks a running Prometheus for what every panel and rule needs, and lists what has no data.

Run it while jobs are done: what counts events has no number before. What is there only in case of trouble, or with a
setting, is listed below with its reason; anything else without data ends with status 1.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass

import page
import promql
from check import boards, panels

# Selectors that may have no series: a metric with labels appears with the first thing that it counts.
NO_SERIES = {
    "excite_dead_total": "no job was given up",
    "namespace_reason:excite_dead:increase15m": "no job was given up",
    "excite_retries_total": "no job was tried again",
    "excite_outcomes_total{kind=\"failed\"}": "no job failed",
    "excite_oom_total": "no memory was short",
    "excite_redeliveries_total": "no job was delivered again",
    "excite_checkpoints_total": "no job ran for worker.checkpoint_seconds",
    "excite_http_requests_total{status=~\"5..\"}": "no request failed",
    "excite_accept_total{result=\"failed\"}": "no submission failed",
    "namespace_result:excite_accept:increase15m{result=\"failed\"}": "no submission failed",
    "excite_batch_size": "no size was chosen yet, or worker.batch_size is a number",
    "excite_reuse_total": "worker.reuse is off",
    "excite_backlog_gpu_seconds": "nothing waits",
    "excite_scale_desired": "no autoscaler asks",
    "excite_selftest_ok{pool!=\"\"}": "workers have no label `pool`: only the chart gives them one",
    "excite:worker_price_per_hour": "no pool has a price, which only the chart's values can give it",
}
# Metrics of which an expression may give no number.
NO_NUMBER = {
    "excite_canary_duration_seconds_bucket": "no canary within the hour, or dispatcher.canary_seconds is 0",
    "excite_model_load_seconds_bucket": "no model was loaded within the hour",
}
# Parts of expressions that need a past.
NO_PAST = {"[7d] offset 1h": "Prometheus is younger than an hour"}


class Prometheus:
    """A server that is asked."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def get(self, path: str, **query: str) -> dict:
        """The `data` of an answer."""
        url = f"{self.url}{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise SystemExit(f"error: {url}: {error.read().decode(errors='replace')[:500]}") from None
        except (OSError, ValueError, KeyError) as error:
            raise SystemExit(f"error: {url} does not answer as a Prometheus: {error}") from None

    @functools.cache
    def numbers(self, expr: str) -> tuple[float, ...]:
        """Values of an expression now."""
        data = self.get("/api/v1/query", query=expr)
        return tuple(float(sample["value"][1]) for sample in data["result"])


@dataclass(frozen=True)
class Need:
    """Something that should have data."""

    place: str
    expr: str


def needs(window: str) -> list[Need]:
    """What panels and rules ask for, with the dashboards' variables filled in."""
    found: list[Need] = []
    for file, board in boards().items():
        for panel in panels(board):
            for target in panel["targets"]:
                expr = target["expr"].replace("$__rate_interval", window)
                for variable in board["templating"]["list"]:
                    expr = expr.replace(f"${variable['name']}", ".*")
                found.append(Need(f"{file}, panel `{panel['title']}`", expr))
    for rule in page.rules():
        if not rule.alert:
            found.append(Need(f"rule {rule.name}", rule.name))
            continue
        # An alert has no data while all is well; what it looks at has.
        for selector in dict.fromkeys(map(str, promql.parse(rule.expr).selectors)):
            found.append(Need(f"alert {rule.name}", f"last_over_time({selector}[{window}])"))
    return found


def is_of(selector: promql.Selector, key: str) -> bool:
    """Whether a selector is one that a key names: the same metric with at least its matchers."""
    named = promql.parse(key).selectors[0]
    return selector.name == named.name and set(named.matchers) <= set(selector.matchers)


def excuse(prometheus: Prometheus, need: Need, window: str) -> str | None:
    """Why an expression may have no data; `None` if it should have some."""
    selectors = promql.parse(need.expr).selectors
    if need.place.startswith("rule "):
        expr = next(rule.expr for rule in page.rules() if rule.name == need.expr)
        selectors += promql.parse(expr).selectors
    empty = [s for s in selectors if s.name != need.expr and not prometheus.numbers(f"last_over_time({s}[{window}])")]
    for selector in empty:
        reasons = [reason for key, reason in NO_SERIES.items() if is_of(selector, key)]
        if not reasons:
            return None
    if empty:
        return reasons[0]
    for selector in selectors:
        if selector.name in NO_NUMBER:
            return NO_NUMBER[selector.name]
    return next((reason for part, reason in NO_PAST.items() if part in need.expr), None)


def rules_run(prometheus: Prometheus) -> list[str]:
    """Rules that the server does not have, or cannot evaluate."""
    faults = []
    there = {rule["name"]: rule for group in prometheus.get("/api/v1/rules")["groups"] for rule in group["rules"]}
    for rule in page.rules():
        found = there.get(rule.name)
        if found is None:
            faults.append(f"rule {rule.name}: this Prometheus does not have it; load {page.RULES.name}")
        elif found["health"] == "err":
            faults.append(f"rule {rule.name}: {found['lastError']}")
    return faults


def main() -> int:
    """Asks and reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", metavar="PROMETHEUS_URL", help="such as http://127.0.0.1:9090")
    parser.add_argument("--window", default="5m", help="range of rates, at least four scrapes [default: 5m]")
    args = parser.parse_args()
    prometheus = Prometheus(args.url)
    faults = rules_run(prometheus)
    quiet: dict[str, list[str]] = {}
    all_needs = needs(args.window)
    for need in all_needs:
        numbers = prometheus.numbers(need.expr)
        if any(not math.isnan(number) for number in numbers):
            continue
        reason = excuse(prometheus, need, args.window)
        if reason is not None:
            quiet.setdefault(reason, []).append(need.place)
            continue
        what = "no number, only NaN: nothing happens; run this while jobs are done" if numbers else "no data"
        faults.append(f"{need.place}: {what}: {need.expr}")
    for reason, places in quiet.items():
        print(f"quiet: {reason}: {', '.join(dict.fromkeys(places))}")
    for alert in prometheus.get("/api/v1/alerts")["alerts"]:
        if alert["labels"]["alertname"].startswith("Excite"):
            print(f"note: {alert['labels']['alertname']} is {alert['state']}: {alert['annotations'].get('description', '')}")
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    silent = sum(len(places) for places in quiet.values())
    print(f"{len(all_needs)} expressions: {len(all_needs) - silent - len(faults)} with data, {silent} quiet, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
