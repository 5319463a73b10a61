#!/usr/bin/env python3
"""`helm lint` of the chart with each example's values, and versions: a chart has that of the
programs of its release."""

from __future__ import annotations

import sys
from pathlib import Path

import environment

environment.enter()

from charts import COPIES, load, merged, variants, workspace_version  # noqa: E402
from environment import CHART  # noqa: E402
from helm import Helm, HelmError  # noqa: E402
from report import Failed, main  # noqa: E402

# As Helm counts: unknown, info, warning, error.
WARNING = 2


def check(helm: Helm | None = None) -> str:
    """All of it."""
    helm = helm or Helm()
    versions()
    defaults = load(CHART / "values.yaml")
    faults = []
    for name, values in variants().items():
        chart = COPIES.copy(values=merged(defaults, values))
        faults += [f"{name}: {message}" for message in worse(helm, chart)]
    if faults:
        raise Failed(faults)
    # Its own fault: a chart that Helm cannot read.
    broken = COPIES.copy(values=merged(defaults, variants()["laptop"]))
    with open(broken / "templates/broken.yaml", "w", encoding="utf-8") as file:
        file.write("a: [1, 2\n")
    if not worse(helm, broken):
        raise Failed("a template that is no YAML passes: `helm lint` finds nothing any more")
    return f"{len(variants())} files of values; versions are those of the workspace"


def worse(helm: Helm, chart: Path) -> list[str]:
    """The files in which `helm lint` finds more than advice."""
    try:
        found = helm.lint(chart)
    except HelmError as error:
        return [str(error)]
    return [
        f"{path}: `helm lint charts/excite --values ...` says what is wrong"
        for severity, path in found
        if severity >= WARNING
    ]


def versions() -> None:
    """Both versions of the chart are those of the workspace."""
    head, wanted = load(CHART / "Chart.yaml"), workspace_version()
    faults = [
        f"charts/excite/Chart.yaml: {key} is {head[key]}, and Cargo.toml says {wanted}; "
        "set it to that"
        for key in ("version", "appVersion")
        if str(head[key]) != wanted
    ]
    if faults:
        raise Failed(faults)


if __name__ == "__main__":
    sys.exit(main("lint", __doc__, check))
