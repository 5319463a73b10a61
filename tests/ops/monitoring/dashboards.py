#!/usr/bin/env python3
"""Makes the Grafana dashboards of charts/excite/files/dashboards from the table in panels.py.

`--write` writes them, `--check` says which differ from the table and changes nothing. Grafana's own
export has hundreds of lines a panel that nobody reads; here only what decides about a picture is kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import promql
from page import DASHBOARDS as FOLDER
from panels import DASHBOARDS, Dashboard, Panel

# Of Grafana 11, which later ones read.
SCHEMA_VERSION = 39
HEIGHTS = {"stat": 4, "timeseries": 8, "heatmap": 8, "table": 8}
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Which metric's label the choices of a variable are.
VARIABLES = {
    "namespace": ("Namespace", "label_values(excite_leader, namespace)"),
    "model": ("Model", 'label_values(excite_jobs_total{namespace=~"$namespace"}, model)'),
    "workers_pool": ("Pool", 'label_values(excite_selftest_ok{namespace=~"$namespace"}, pool)'),
    "pool": ("Pool", 'label_values(excite_scale_desired{namespace=~"$namespace"}, pool)'),
}


def expression(text: str, of_workers: bool) -> str:
    """PromQL as Grafana sends it: with the dashboard's choices in every selector."""
    for variable in ("model", "pool"):
        text = text.replace(f"{{{variable}}}", f'{{{variable}=~"${variable}"}}')
    text = text.replace("[RATE]", "[$__rate_interval]")
    if of_workers:
        # Of what is recorded some is of all workers together.
        pool = promql.Matcher("pool", "=~", "$workers_pool")
        text = promql.with_matcher(text, pool, lambda name: ":" not in name)
    return promql.with_matcher(text, promql.Matcher("namespace", "=~", "$namespace"))


def variable(name: str) -> dict:
    """A choice of a label's values, all at first. `.*` also takes series without the label."""
    label, query = VARIABLES[name]
    return {
        "name": name, "label": label, "type": "query", "datasource": SOURCE,
        "query": {"query": query, "refId": name}, "definition": query,
        "includeAll": True, "allValue": ".*", "multi": True,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "refresh": 2, "sort": 1, "hide": 0, "options": [], "regex": "", "skipUrlSync": False,
    }


def datasource() -> dict:
    """The choice of a Prometheus."""
    return {
        "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
        "current": {}, "hide": 0, "includeAll": False, "multi": False, "options": [],
        "refresh": 1, "regex": "", "skipUrlSync": False,
    }


def targets(panel: Panel, of_workers: bool) -> list[dict]:
    """Queries of a panel."""
    kind = {"table": {"format": "table", "instant": True, "range": False},
            "heatmap": {"format": "heatmap"},
            "stat": {"instant": True, "range": False}}.get(panel.kind, {})
    return [
        {"refId": chr(ord("A") + n), "datasource": SOURCE, "editorMode": "code", "range": True,
         "expr": expression(expr, of_workers), "legendFormat": legend or "__auto", **kind}
        for n, (expr, legend) in enumerate(panel.targets)
    ]


def looks(panel: Panel) -> dict:
    """Unit, colours, and how lines are drawn."""
    steps = [{"color": color, "value": value} for value, color in panel.steps]
    defaults: dict = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "timeseries":
        defaults["min"] = 0
        defaults["color"] = {"mode": "palette-classic"}
        defaults["custom"] = {
            "drawStyle": "line", "lineWidth": 1, "fillOpacity": 25 if panel.stack else 5,
            "showPoints": "never", "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
        }
    elif panel.kind == "stat":
        defaults["color"] = {"mode": "thresholds"}
    return {"defaults": defaults, "overrides": []}


def options(panel: Panel) -> dict:
    """What the kind of panel wants to know."""
    match panel.kind:
        case "stat":
            reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
            return {"reduceOptions": reduce, "colorMode": "value", "graphMode": "none",
                    "justifyMode": "auto", "orientation": "auto", "textMode": "auto"}
        case "heatmap":
            return {"calculate": False, "cellGap": 1, "color": {"mode": "scheme", "scheme": "Oranges"},
                    "yAxis": {"unit": panel.unit}, "tooltip": {"mode": "single"}, "legend": {"show": True}}
        case "table":
            return {"showHeader": True, "cellHeight": "sm"}
        case "timeseries":
            return {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
                    "tooltip": {"mode": "multi", "sort": "desc"}}
        case kind:
            raise SystemExit(f"error: panel `{panel.title}` is a `{kind}`; use one of {', '.join(HEIGHTS)}")


def layout(dashboard: Dashboard) -> list[dict]:
    """Rows and panels with their places, numbered from 1."""
    placed: list[dict] = []
    y = 0

    def place(content: dict, x: int, width: int, height: int) -> None:
        at = {"x": x, "y": y, "w": width, "h": height}
        placed.append({"id": len(placed) + 1, "gridPos": at, **content})

    for row in dashboard.rows:
        place({"type": "row", "title": row.title, "collapsed": False, "panels": []}, 0, 24, 1)
        y += 1
        x, tallest = 0, 0
        for panel in row.panels:
            if x + panel.width > 24:
                y += tallest
                x, tallest = 0, 0
            content = {
                "type": panel.kind, "title": panel.title, "description": panel.description,
                "datasource": SOURCE, "targets": targets(panel, dashboard.of_workers),
                "fieldConfig": looks(panel), "options": options(panel),
            }
            if panel.kind == "table":
                content["transformations"] = [{"id": "organize", "options": {
                    "excludeByName": {"Time": True}, "renameByName": {"Value": "count"}}}]
            place(content, x, panel.width, HEIGHTS[panel.kind])
            x += panel.width
            tallest = max(tallest, HEIGHTS[panel.kind])
        y += tallest
    return placed


def build(dashboard: Dashboard) -> dict:
    """The dashboard as Grafana reads it."""
    firing = 'ALERTS{alertname=~"Excite.*",alertstate="firing",namespace=~"$namespace"}'
    return {
        "uid": dashboard.uid, "title": dashboard.title, "description": dashboard.description,
        "tags": ["excite"], "schemaVersion": SCHEMA_VERSION, "version": 1, "editable": True,
        "graphTooltip": 1, "refresh": "30s", "timezone": "", "time": {"from": "now-3h", "to": "now"},
        "links": [{"title": "Excite", "type": "dashboards", "tags": ["excite"], "asDropdown": False,
                   "includeVars": True, "keepTime": True, "targetBlank": False, "icon": "external link"}],
        "templating": {"list": [datasource(), *map(variable, ("namespace", *dashboard.variables))]},
        "annotations": {"list": [{
            "name": "Alerts", "enable": True, "datasource": SOURCE, "expr": firing,
            "titleFormat": "{{alertname}}", "iconColor": "red", "step": "60s",
        }]},
        "panels": layout(dashboard),
    }


def files() -> dict[Path, str]:
    """What each file should be."""
    return {
        FOLDER / f"{dashboard.uid.removeprefix('excite-')}.json":
            json.dumps(build(dashboard), indent=1) + "\n"
        for dashboard in DASHBOARDS
    }


def differing() -> list[str]:
    """What is not as the table says, with the remedy."""
    wanted = files()
    faults = [
        f"{path.name} is not what panels.py says; run tests/ops/monitoring/dashboards.py --write"
        for path, text in wanted.items()
        if not path.is_file() or path.read_text() != text
    ]
    for path in sorted(FOLDER.glob("*")):
        if path not in wanted:
            faults.append(f"{path.name} is in no table; delete it, or add it to panels.py")
    return faults


def main() -> int:
    """Writes or compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="write the dashboards")
    what.add_argument("--check", action="store_true", help="say which differ from the table")
    if parser.parse_args().write:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for path, text in files().items():
            path.write_text(text)
    faults = differing()
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
