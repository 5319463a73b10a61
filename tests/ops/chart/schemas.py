#!/usr/bin/env python3
"""Every object of every example against Kubernetes' own schemas, of the oldest version that the
chart supports and of the newest, and those of KEDA and Prometheus' operator against schemas/."""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import environment

environment.enter()

import jsonschema  # noqa: E402
import kubernetes_validate  # noqa: E402

from charts import load, name_of, plain, variants  # noqa: E402
from environment import CHART  # noqa: E402
from helm import Helm  # noqa: E402
from report import Failed, main  # noqa: E402

SCHEMAS = {
    path.stem: json.loads(path.read_text())
    for path in Path(__file__).with_name("schemas").glob("*.json")
}


def check(helm: Helm | None = None) -> str:
    """All of it."""
    helm = helm or Helm()
    oldest = re.search(r"\d+\.\d+", load(CHART / "Chart.yaml")["kubeVersion"])[0]
    newest = ".".join(kubernetes_validate.latest_version().split(".")[:2])
    faults, count, objects = [], 0, {}
    for name, values in variants().items():
        for found in helm.render(plain(), values).objects:
            for version in (oldest, newest):
                faults += [
                    f"{name}, Kubernetes {version}: {fault}" for fault in wrong(found, version)
                ]
            objects.setdefault(found["kind"], found)
            count += 1
    if faults:
        raise Failed(faults)
    unnoticed = [
        kind for kind, breaks in BREAKS.items() if not broken(objects, kind, breaks, newest)
    ]
    if unnoticed:
        raise Failed(
            [
                f"a broken {kind} passes: the check finds nothing of it any more"
                for kind in unnoticed
            ]
        )
    kinds = ", ".join(sorted(objects))
    return (
        f"{count} objects against {oldest} and {newest}: {kinds}; "
        f"{len(BREAKS)} broken ones are refused"
    )


def wrong(found: dict, version: str) -> list[str]:
    """What is wrong with an object."""
    try:
        if found["kind"] in SCHEMAS:
            jsonschema.validate(found, SCHEMAS[found["kind"]], cls=jsonschema.Draft202012Validator)
        else:
            kubernetes_validate.validate(found, version, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        where = ".".join(str(part) for part in error.path)
        return [f"{name_of(found)}: {where}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError:
        return [
            f"{name_of(found)}: there is no schema of {found['apiVersion']}; write one into "
            "tests/ops/chart/schemas"
        ]
    return []


def broken(
    objects: dict[str, dict], kind: str, breaks: Callable[[dict], object], version: str
) -> bool:
    """Whether an object that was broken on purpose is refused."""
    found = copy.deepcopy(objects[kind])
    breaks(found["spec"])
    return bool(wrong(found, version))


# A fault for each kind of schema, as one makes it by hand.
BREAKS: dict[str, Callable[[dict], object]] = {
    "Deployment": lambda spec: spec["template"]["spec"].update(tolerationz=[]),
    "Job": lambda spec: spec.update(backoffLimit="6"),
    "NetworkPolicy": lambda spec: spec["egress"][0].update(from_=[]),
    "PodDisruptionBudget": lambda spec: spec.update(maxUnavailabel=1),
    "Service": lambda spec: spec["ports"][0].update(port="8080"),
    "ScaledObject": lambda spec: spec["triggers"][0]["metadata"].update(targetValue=1),
    "TriggerAuthentication": lambda spec: spec["secretTargetRef"][0].pop("key"),
    "PodMonitor": lambda spec: spec["podMetricsEndpoints"][0].update(ports="metrics"),
    "PrometheusRule": lambda spec: spec["groups"][0]["rules"][0].pop("expr"),
}


if __name__ == "__main__":
    sys.exit(main("schemas", __doc__, check))
