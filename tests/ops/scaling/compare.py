"""Compares autoscalers by what `excite-scaling` simulated: a table and plots for docs/scaling.md.

For each setting of the dispatcher's scale function: what it costs, and what the cheapest setting of
any other autoscaler costs that is done as soon. `cargo xtask ops scaling` calls it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

# An autoscaler is done as soon as another if it takes at most this much longer.
AS_SOON = 1.02
MARK = "cargo xtask ops scaling --write"
OTHERS = {"KEDA, http": "tab:orange", "KEDA, amqp": "tab:red", "HPA, utilisation": "tab:gray"}

Point = dict[str, Any]


def cheapest(points: list[Point], seconds: float) -> Point | None:
    """The cheapest point that is done within `seconds`."""
    soon = [p for p in points if p["seconds"] is not None and p["seconds"] <= seconds * AS_SOON]
    return min(soon, key=lambda p: p["gpu_seconds"], default=None)


def envelope(points: list[Point]) -> list[Point]:
    """The points that no other one beats in both, the fastest first."""
    best: list[Point] = []
    for point in sorted(
        (p for p in points if p["seconds"] is not None), key=lambda p: (p["seconds"], p["gpu_seconds"])
    ):
        if not best or point["gpu_seconds"] < best[-1]["gpu_seconds"]:
            best.append(point)
    return best


def setting(point: Point) -> str:
    """How another autoscaler was tuned."""
    tuned = point["set"]
    what = (
        f"{tuned['jobs_per_worker']:g} jobs a worker"
        if "jobs_per_worker" in tuned
        else f"{tuned['target']:.0%}, at most {tuned['max']}"
    )
    return f"{tuned['autoscaler']}: {what}"


def rows(scenario: dict[str, Any]) -> list[tuple[Point, Point | None]]:
    """Each setting of ours that something is done with, beside the best of the others."""
    return [(ours, cheapest(scenario["others"], ours["seconds"])) for ours in envelope(scenario["ours"])]


def table(report: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| scenario | `drain_seconds` | done after | GPU hours | most pods | wasted | cheapest other that is done as soon | its GPU hours | ours less |",
        "|---|---:|---:|---:|---:|---:|---|---:|---:|",
    ]
    for scenario in report["scenarios"]:
        for ours, other in rows(scenario):
            cells = [
                scenario["name"],
                f"{ours['set']['drain_seconds']:.0f} s",
                f"{ours['seconds']:.0f} s",
                f"{ours['gpu_seconds'] / 3600:.1f}",
                f"{ours['peak']:.0f}",
                f"{ours['wasted']:.2%}",
            ]
            if other is None:
                cells += ["none", "", ""]
            else:
                saved = 1 - ours["gpu_seconds"] / other["gpu_seconds"]
                cells += [setting(other), f"{other['gpu_seconds'] / 3600:.1f}", f"{saved:.0%}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(report: dict[str, Any], path: Path) -> None:
    """GPU hours over seconds until done, a panel a scenario."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    scenarios = report["scenarios"]
    figure, axes = pyplot.subplots((len(scenarios) + 1) // 2, 2, figsize=(11, 12), squeeze=False)
    for axis, scenario in zip(axes.flat, scenarios):
        for name, colour in OTHERS.items():
            mine = [p for p in scenario["others"] if p["set"]["autoscaler"] == name and p["seconds"]]
            axis.plot(
                [p["seconds"] for p in mine], [p["gpu_seconds"] / 3600 for p in mine],
                ".", color=colour, alpha=0.25, markersize=4,
            )
            best = envelope(mine)
            axis.plot(
                [p["seconds"] for p in best], [p["gpu_seconds"] / 3600 for p in best],
                drawstyle="steps-post", color=colour, label=name, linewidth=1.2,
            )
        ours = envelope(scenario["ours"])
        axis.plot(
            [p["seconds"] for p in ours], [p["gpu_seconds"] / 3600 for p in ours],
            "o-", color="tab:blue", label="excite", linewidth=2,
        )
        axis.axhline(scenario["work_seconds"] / 3600, color="black", linewidth=0.8, linestyle=":")
        axis.set_title(scenario["name"])
        axis.set_xscale("log")
        most = max(p["gpu_seconds"] for p in scenario["ours"]) / 3600
        axis.set_ylim(0, 2.5 * most)
        axis.set_xlabel("seconds until done")
        axis.set_ylabel("GPU hours")
        axis.legend(fontsize=8)
    for axis in list(axes.flat)[len(scenarios):]:
        axis.set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def misses(report: dict[str, Any]) -> list[str]:
    """Where a goal is missed: never dearer than another, and little work wasted."""
    found = []
    for scenario in report["scenarios"]:
        for ours, other in rows(scenario):
            where = f"{scenario['name']}, drain_seconds {ours['set']['drain_seconds']:.0f}"
            if other and ours["gpu_seconds"] > other["gpu_seconds"]:
                more = ours["gpu_seconds"] / other["gpu_seconds"] - 1
                found.append(f"{where}: {more:.1%} dearer than {setting(other)}")
            if ours["wasted"] >= 0.01:
                found.append(f"{where}: {ours['wasted']:.1%} of the work is lost")
    return found


def main() -> int:
    """Prints the table; with --write puts it, and the plots, into the documentation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="what excite-scaling printed")
    parser.add_argument("--write", type=Path, metavar="DOCS", help="the folder of docs/scaling.md")
    args = parser.parse_args()
    report = json.loads(args.report.read_text())
    text = table(report)
    print(text)
    if args.write:
        page = args.write / "scaling.md"
        marks = re.compile(rf"(<!-- {re.escape(MARK)} -->\n).*?(<!-- end -->)", re.S)
        before = page.read_text()
        after, count = marks.subn(lambda m: f"{m[1]}\n{text}\n\n{m[2]}", before)
        if count != 1:
            print(f"{page}: it lacks `<!-- {MARK} -->` ... `<!-- end -->`", file=sys.stderr)
            return 1
        page.write_text(after)
        plot(report, args.write / "images" / "scaling.png")
    missed = misses(report)
    for miss in missed:
        print(f"missed: {miss}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
