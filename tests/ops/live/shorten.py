"""Makes the rules of the chart, and its example for Alertmanager, faster by a factor, so that an hour passes in minutes.

Divided are: each `for`, each range and offset, each age that is compared with seconds, and each number of events within a
range, which so stays the same number of events a minute. Nothing else is: labels, ratios and joins are those of the chart.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

import page

FACTOR = 30
SCRAPE_SECONDS = 1
# A rate needs some numbers.
SCRAPES_MIN = 4
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

DURATION = re.compile(r"(?P<before>\[|\boffset )(?P<number>\d+)(?P<unit>[smhd])\b")
# What has a number to divide behind it: an age, or a number of events.
DIVIDED = re.compile(
    r"(?P<before>(?:_seconds:leader|_timestamp_seconds"
    r"|\bincrease\(\w+(?:\{[^}]*\})?\[\w+\]\)\)|:increase15m\{[^}]*\}\)) (?:>=?) )(?P<number>\d+)\b")
# Numbers that are compared with something that has no time: 0, 1, 2 * and shares.
COMPARED = re.compile(r"(?:>=?|<=?|==) (?P<number>\d+(?:\.\d+)?)\b(?!\s*\*)")


def seconds(text: str) -> float:
    """A duration of one unit."""
    return int(text[:-1]) * UNITS[text[-1]]


def shorter(duration: str) -> str:
    """A duration divided by the factor, in whole milliseconds."""
    return f"{round(seconds(duration) / FACTOR * 1000)}ms"


def expression(expr: str) -> str:
    """An expression whose ranges, offsets, ages and counts are divided."""
    expr = re.sub(r"#[^\n]*", "", expr)
    for found in COMPARED.finditer(DIVIDED.sub("", expr)):
        if float(found["number"]) > 1:
            raise SystemExit(f"error: `{found[0]}` in `{expr}`: say in shorten.py whether it is divided")

    def duration(found: re.Match[str]) -> str:
        short = seconds(found["number"] + found["unit"]) / FACTOR
        if found["before"] == "[" and short < SCRAPES_MIN * SCRAPE_SECONDS:
            raise SystemExit(f"error: [{found['number']}{found['unit']}] / {FACTOR} has less than {SCRAPES_MIN} scrapes; "
                             "lower FACTOR in shorten.py")
        return found["before"] + shorter(found["number"] + found["unit"])

    expr = DURATION.sub(duration, expr)
    return DIVIDED.sub(lambda found: f"{found['before']}{int(found['number']) / FACTOR:.4f}", expr)


def rules() -> dict[str, Any]:
    """The chart's rules, faster."""
    document = yaml.safe_load(page.RULES.read_text())
    for group in document["groups"]:
        group["interval"] = f"{SCRAPE_SECONDS}s"
        for rule in group["rules"]:
            rule["expr"] = expression(rule["expr"])
            if "for" in rule:
                rule["for"] = shorter(rule["for"])
    return document


def alertmanager(example: str, receiver: str) -> dict[str, Any]:
    """The example for Alertmanager, faster, that tells `receiver` at a path for each of its receivers."""
    document = yaml.safe_load(example)

    def route(node: dict[str, Any]) -> None:
        for name in ("group_wait", "group_interval", "repeat_interval"):
            if name in node:
                node[name] = shorter(node[name])
        for child in node.get("routes", []):
            route(child)

    route(document["route"])
    for one in document["receivers"]:
        for hook in one.get("webhook_configs", []):
            hook["url"] = f"{receiver}/{one['name']}"
    return document
