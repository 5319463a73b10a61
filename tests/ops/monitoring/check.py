#!/usr/bin/env python3
"""Checks what Excite is watched by: rules and their tests, dashboards, runbooks, the example for Alertmanager.

Each alert must fire in a test, be silent in ordinary hours, and have a runbook and a dashboard. Whatever a rule or panel
names must be a metric of docs/metrics.md, and each metric must be seen somewhere.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

import dashboards
import page
import promql
import tools

TESTS = Path(__file__).parent / "rules_test"
NORMAL = "normal.yaml"
ALERTMANAGER = page.ROOT / "charts/excite/files/alertmanager.example.yaml"
SEVERITIES = {"page", "ticket", "info"}
ANNOTATIONS = ("summary", "description", "runbook_url", "dashboard")
# Alerts whose value says nothing: whether something is there at all.
WITHOUT_VALUE = {"ExciteDispatcherDown"}
# Metrics that no dashboard shows, each with the reason.
NOT_SHOWN: dict[str, str] = {}
# Series that are not of Excite.
OTHERS = {"ALERTS": frozenset({"alertname", "alertstate", "severity"})}


def known() -> dict[str, frozenset[str]]:
    """All series that expressions may name, with their labels."""
    # What is recorded begins with the labels that it has.
    recorded = {
        rule.name: frozenset(rule.name.split(":")[0].split("_")) for rule in page.rules() if not rule.alert
    }
    return {**page.series(), **recorded, **page.CHART_SERIES, **OTHERS}


def boards() -> dict[str, dict]:
    """The dashboards by their file's name."""
    return {path.name: json.loads(path.read_text()) for path in sorted(page.DASHBOARDS.glob("*.json"))}


def panels(board: dict) -> Iterator[dict]:
    """Its panels, without rows."""
    return (panel for panel in board["panels"] if panel["type"] != "row")


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression with the place where it stands."""
    for rule in page.rules():
        yield f"rule {rule.name}", rule.expr
    for file, board in boards().items():
        for annotation in board["annotations"]["list"]:
            yield f"{file}, annotation {annotation['name']}", annotation["expr"]
        for panel in panels(board):
            for target in panel["targets"]:
                yield f"{file}, panel `{panel['title']}`", target["expr"]


def rules_are_valid() -> Iterator[str]:
    """promtool reads the rules."""
    well, said = tools.run("promtool", "check", "rules", page.RULES)
    if not well:
        yield said


def rules_pass() -> Iterator[str]:
    """The tests of the rules pass."""
    well, said = tools.run("promtool", "test", "rules", *sorted(TESTS.glob("*.yaml")))
    if not well:
        yield said


def complaints(expr: str, files: list[Path]) -> str:
    """What promtool says of some tests when every alert has this expression, and waits for nothing."""
    document = yaml.safe_load(page.RULES.read_text())
    for rule in (rule for group in document["groups"] for rule in group["rules"] if "alert" in rule):
        rule.update(expr=expr)
        rule.pop("for", None)
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "rules.yaml"
        rules.write_text(yaml.safe_dump(document))
        copies = []
        for file in files:
            copy = Path(folder) / file.name
            test = yaml.safe_load(file.read_text())
            copy.write_text(yaml.safe_dump({**test, "rule_files": [str(rules)]}))
            copies.append(copy)
        return tools.run("promtool", "test", "rules", *copies)[1]


def tests_notice() -> Iterator[str]:
    """Tests notice each alert that never fires, and each that always does."""
    cases = [path for path in sorted(TESTS.glob("*.yaml")) if path.name != NORMAL]
    never = complaints("vector(0) > 1", cases)
    always = complaints("vector(1)", [TESTS / NORMAL])
    for rule in page.rules():
        if not rule.alert:
            continue
        named = re.compile(rf"\b{rule.name}\b")
        if not named.search(never):
            yield f"no test needs {rule.name} to fire; add a case to tests/ops/monitoring/rules_test"
        if not named.search(always):
            yield f"{NORMAL} does not notice that {rule.name} fires"


def normal_is_whole() -> Iterator[str]:
    """The ordinary hours have every series."""
    test = yaml.safe_load((TESTS / NORMAL).read_text())["tests"][0]
    there = {promql.parse(series["series"]).selectors[0].name for series in test["input_series"]}
    for name in sorted(set(page.series()) - there):
        yield f"{NORMAL} has no series `{name}`; add one as it is while all is well"
    for series in test["input_series"]:
        selector = promql.parse(series["series"]).selectors[0]
        wrong = {m.label for m in selector.matchers} - page.series().get(selector.name, frozenset()) - page.TARGET_LABELS
        if selector.name not in page.series() or wrong:
            yield f"{NORMAL}: `{selector}` is no series of Excite"


def alerts_are_complete() -> Iterator[str]:
    """Each alert has a severity, its texts, a section in docs/runbooks.md and a dashboard."""
    sections = re.findall(r"^## (\w+)$", page.RUNBOOKS.read_text(), re.MULTILINE)
    links = {f"/d/{board['uid']}" for board in boards().values()}
    alerts = [rule for rule in page.rules() if rule.alert]
    for rule in alerts:
        if rule.labels.get("severity") not in SEVERITIES:
            yield f"{rule.name}: severity is `{rule.labels.get('severity')}`; use one of {', '.join(sorted(SEVERITIES))}"
        for name in ANNOTATIONS:
            if name not in rule.annotations:
                yield f"{rule.name}: annotation `{name}` is missing"
        if "$value" not in rule.annotations.get("description", "") and rule.name not in WITHOUT_VALUE:
            yield f"{rule.name}: its description has no `$value`"
        wanted = f"docs/runbooks.md#{rule.name.lower()}"
        if rule.annotations.get("runbook_url") != wanted:
            yield f"{rule.name}: runbook_url is `{rule.annotations.get('runbook_url')}`; write {wanted}"
        if rule.name not in sections:
            yield f"docs/runbooks.md has no section `## {rule.name}`"
        if rule.annotations.get("dashboard") not in links:
            yield f"{rule.name}: there is no dashboard `{rule.annotations.get('dashboard')}`; use one of {', '.join(sorted(links))}"
    names = [rule.name for rule in alerts]
    for section in sections:
        if section not in names:
            yield f"docs/runbooks.md has a section `{section}`, and there is no such alert"
    for name in {name for name in names if names.count(name) > 1}:
        yield f"{name}: there are several alerts of this name"


def runbooks_point_at_panels() -> Iterator[str]:
    """Panels that docs/runbooks.md names in a line with a dashboard are there."""
    titles = {board["uid"]: {panel["title"] for panel in panels(board)} for board in boards().values()}
    text = re.sub(r"\n(?!\n)", " ", page.RUNBOOKS.read_text())
    for words, uid in re.findall(r"((?:\*[^*]+\*(?:, | and |, by pool, and at | ))+)in `(excite-\w+)`", text):
        for title in re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", words):
            if title not in titles.get(uid, set()):
                yield f"docs/runbooks.md: `{uid}` has no panel `{title}`"


def metrics_exist() -> Iterator[str]:
    """Rules and panels name series and labels that there are."""
    series = known()
    for place, expr in expressions():
        query = promql.parse(expr)
        labels = set(page.TARGET_LABELS)
        for selector in query.selectors:
            if selector.name not in series:
                yield f"{place}: there is no series `{selector.name}`"
                continue
            labels |= series[selector.name]
            for matcher in selector.matchers:
                if matcher.label not in series[selector.name] | page.TARGET_LABELS:
                    yield f"{place}: `{selector.name}` has no label `{matcher.label}`"
        for label in sorted(query.labels - labels):
            yield f"{place}: no series of it has the label `{label}`"


def values_exist() -> Iterator[str]:
    """Values of labels that are asked for are written in the programs."""
    sources = "\n".join(
        path.read_text() for crate in ("worker", "dispatcher", "jobs")
        for path in sorted((page.ROOT / "crates" / crate / "src").rglob("*.rs"))
    )
    for place, expr in expressions():
        for selector in promql.parse(expr).selectors:
            for matcher in selector.matchers:
                own = matcher.label in page.series().get(selector.name, frozenset()) or ":" in selector.name
                if not own or not re.fullmatch(r"[\w/|]+", matcher.value):
                    continue
                for value in matcher.value.split("|"):
                    if f'"{value}"' not in sources:
                        yield f"{place}: no program writes `{value}`, asked for by `{selector}`"


def every_metric_is_shown() -> Iterator[str]:
    """A dashboard shows each metric, by itself or as what is recorded of it."""
    recorded = {rule.name: rule.expr for rule in page.rules() if not rule.alert}
    seen: set[str] = set()
    todo = [target["expr"] for board in boards().values() for panel in panels(board) for target in panel["targets"]]
    while todo:
        for selector in promql.parse(todo.pop()).selectors:
            if selector.name not in seen and selector.name in recorded:
                todo.append(recorded[selector.name])
            seen.add(selector.name)
    for metric in page.metrics():
        shown = bool(seen & set(metric.series()))
        if not shown and metric.name not in NOT_SHOWN:
            yield f"no panel shows `{metric.name}`; add one to panels.py, or a reason to NOT_SHOWN"
        if shown and metric.name in NOT_SHOWN:
            yield f"`{metric.name}` is in NOT_SHOWN, and a panel shows it"
    for rule in recorded:
        used = [expr for _, expr in expressions() if rule in {s.name for s in promql.parse(expr).selectors}]
        if not used:
            yield f"nothing uses `{rule}`"


def dashboards_are_sound() -> Iterator[str]:
    """Files are those of the table; numbers, names and variables are as Grafana needs them."""
    yield from dashboards.differing()
    uids: list[str] = []
    for file, board in boards().items():
        uids.append(board["uid"])
        if board["uid"] != f"excite-{file.removesuffix('.json')}":
            yield f"{file}: uid is `{board['uid']}`; write `excite-{file.removesuffix('.json')}`"
        if board["schemaVersion"] != dashboards.SCHEMA_VERSION:
            yield f"{file}: schemaVersion is {board['schemaVersion']}"
        ids = [panel["id"] for panel in board["panels"]]
        if len(ids) != len(set(ids)):
            yield f"{file}: panels share a number"
        variables = {variable["name"]: variable for variable in board["templating"]["list"]}
        if variables.get("datasource", {}).get("type") != "datasource":
            yield f"{file}: there is no variable `datasource`"
        used = set(re.findall(r"\$\{?(\w+)", json.dumps(board["panels"]))) - {"__rate_interval"}
        for name in sorted(used - set(variables)):
            yield f"{file}: the variable `{name}` is used, and is not there"
        for name in sorted(set(variables) - used):
            yield f"{file}: nothing uses the variable `{name}`"
        corners: set[tuple[int, int]] = set()
        for panel in panels(board):
            at = panel["gridPos"]
            corners.add((at["x"], at["y"]))
            if at["x"] + at["w"] > 24:
                yield f"{file}, panel `{panel['title']}`: it is wider than the page"
            if not panel["description"].endswith("."):
                yield f"{file}, panel `{panel['title']}`: its description is no sentence"
            if not panel["fieldConfig"]["defaults"]["unit"]:
                yield f"{file}, panel `{panel['title']}`: it has no unit"
        if len(corners) != len(list(panels(board))):
            yield f"{file}: panels lie on each other"
    if len(set(uids)) != len(uids):
        yield "dashboards share a uid"


def alertmanager_is_valid() -> Iterator[str]:
    """amtool reads the example, and it knows every severity and no alert that is not there."""
    well, said = tools.run("amtool", "check-config", ALERTMANAGER)
    if not well:
        yield said
    text = ALERTMANAGER.read_text()
    names = {rule.name for rule in page.rules() if rule.alert}
    for name in sorted(set(re.findall(r"\bExcite[A-Z]\w*", text)) - names):
        yield f"{ALERTMANAGER.name}: there is no alert `{name}`"
    for severity in sorted(SEVERITIES):
        if f'severity="{severity}"' not in text:
            yield f"{ALERTMANAGER.name}: nobody is told of severity `{severity}`"


CHECKS = (
    rules_are_valid, rules_pass, normal_is_whole, tests_notice, alerts_are_complete, runbooks_point_at_panels,
    dashboards_are_sound, metrics_exist, values_exist, every_metric_is_shown, alertmanager_is_valid,
)


def main() -> int:
    """Runs all checks; the number of faults decides the status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    tools.have("promtool", "amtool")
    faults = 0
    for check in CHECKS:
        began = time.monotonic()
        found = list(check())
        faults += len(found)
        word = "FAIL" if found else "ok"
        print(f"{word:5} {(check.__doc__ or '').splitlines()[0]} ({time.monotonic() - began:.1f} s)", flush=True)
        for fault in found:
            print(f"      {fault}", file=sys.stderr, flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
