#!/usr/bin/env python3
"""What the chart promises of every object, whatever the values: least rights, limits, probes,
closed networks, no secret in sight, and selectors that a new version does not change."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable

import environment

environment.enter()

from charts import COPIES, name_of, plain, variants  # noqa: E402
from helm import Helm  # noqa: E402
from report import Failed, main  # noqa: E402
from rules import ALL, deployments  # noqa: E402

Objects = list[dict]


def check(helm: Helm | None = None) -> str:
    """All of it."""
    helm = helm or Helm()
    rendered = {name: helm.render(plain(), values).objects for name, values in variants().items()}
    faults = [f"{name}: {fault}" for name, objects in rendered.items() for fault in broken(objects)]
    later = COPIES.copy(version="99.0.0")
    for name, values in variants().items():
        faults += [
            f"{name}: {fault}"
            for fault in changed(rendered[name], helm.render(later, values).objects)
        ]
    if faults:
        raise Failed(faults)
    everything = [found for objects in rendered.values() for found in objects]
    unnoticed = [word for word, breaks in BREAKS if not notices(rendered, breaks, word)]
    if unnoticed:
        raise Failed(
            [f"objects that were broken pass, where `{word}` should be said" for word in unnoticed]
        )
    other = copy.deepcopy(rendered["laptop"])
    of(other, "Deployment")["spec"]["selector"]["matchLabels"]["version"] = "99.0.0"
    if not changed(rendered["laptop"], other):
        raise Failed("a selector with the version passes: the check finds nothing of it any more")
    return (
        f"{len(everything)} objects, {len(ALL)} rules, selectors the same in two versions; "
        f"{len(BREAKS)} broken objects are noticed"
    )


def broken(objects: Objects) -> list[str]:
    """What breaks a rule."""
    return [fault for rule in ALL for fault in rule(objects)]


def changed(old: Objects, new: Objects) -> list[str]:
    """Selectors that differ between two versions: Kubernetes would refuse the upgrade, or leave the
    pods of the old version without Service and policies."""

    def selectors(objects: Objects) -> dict[str, object]:
        return {
            name_of(found): found["spec"].get("selector", found["spec"].get("podSelector"))
            for found in objects
            if "spec" in found and found["kind"] != "Job"
        }

    before, after = selectors(old), selectors(new)
    faults = [
        f"{name}: its selector changes with the version: {before[name]} and {after.get(name)}"
        for name in before
        if before[name] != after.get(name)
    ]
    for kind, name, labels in (
        (f["kind"], name_of(f), f["spec"]["template"]["metadata"]["labels"])
        for f in deployments(new)
    ):
        if any("99.0.0" in value for value in labels.values()):
            faults.append(
                f"{name}: labels of its pods have the version, so that each {kind} is "
                "rolled out by a new chart; take it out"
            )
    return faults


def notices(rendered: dict[str, Objects], breaks: Callable[[Objects], object], word: str) -> bool:
    """Whether a fault that is put in is found, by what is said of it."""
    objects = copy.deepcopy(rendered["spot-and-on-demand"])
    breaks(objects)
    return any(word in fault for fault in broken(objects))


def of(objects: Objects, kind: str, end: str = "") -> dict:
    """An object, to be broken."""
    return next(
        found
        for found in objects
        if found["kind"] == kind and found["metadata"]["name"].endswith(end)
    )


def pod(objects: Objects, end: str = "bulk") -> dict:
    """The pod of a Deployment, to be broken."""
    return of(objects, "Deployment", end)["spec"]["template"]["spec"]


def first(objects: Objects, end: str = "bulk") -> dict:
    """Its container."""
    return pod(objects, end)["containers"][0]


def annotations(objects: Objects, end: str) -> dict:
    """Annotations of its pods."""
    return of(objects, "Deployment", end)["spec"]["template"]["metadata"]["annotations"]


# What is broken, and what must be said of it.
BREAKS: list[tuple[str, Callable[[Objects], object]]] = [
    ("63", lambda o: of(o, "Service")["metadata"].update(name="a" * 64)),
    ("two of this name", lambda o: o.append(of(o, "Service"))),
    ("runAsNonRoot", lambda o: pod(o)["securityContext"].update(runAsNonRoot=False)),
    ("seccompProfile", lambda o: pod(o)["securityContext"].pop("seccompProfile")),
    ("automountServiceAccountToken", lambda o: pod(o).pop("automountServiceAccountToken")),
    (
        "automountServiceAccountToken",
        lambda o: of(o, "ServiceAccount").pop("automountServiceAccountToken"),
    ),
    ("enableServiceLinks", lambda o: pod(o).update(enableServiceLinks=True)),
    ("hostNetwork", lambda o: pod(o).update(hostNetwork=True)),
    ("hostPath", lambda o: pod(o)["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
    ("sizeLimit", lambda o: pod(o)["volumes"].append({"name": "x", "emptyDir": {}})),
    (
        "readOnlyRootFilesystem",
        lambda o: first(o)["securityContext"].update(readOnlyRootFilesystem=False),
    ),
    ("capabilities", lambda o: first(o)["securityContext"].update(capabilities={"drop": []})),
    (
        "allowPrivilegeEscalation",
        lambda o: first(o)["securityContext"].pop("allowPrivilegeEscalation"),
    ),
    ("limits.memory", lambda o: first(o)["resources"]["limits"].pop("memory")),
    ("limits.cpu", lambda o: first(o)["resources"]["limits"].pop("cpu")),
    ("requests.cpu", lambda o: first(o)["resources"]["requests"].pop("cpu")),
    ("nvidia.com/gpu", lambda o: first(o)["resources"]["requests"].pop("nvidia.com/gpu")),
    ("image", lambda o: first(o).update(image="a/b:latest")),
    ("image", lambda o: first(o).update(image="registry:5000/b")),
    ("livenessProbe", lambda o: first(o).pop("livenessProbe")),
    ("readinessProbe", lambda o: first(o)["readinessProbe"]["httpGet"].update(path="/healthz")),
    (
        "startupProbe",
        lambda o: first(o, "dispatcher")["startupProbe"]["httpGet"].update(port="metrics"),
    ),
    ("terminationGracePeriodSeconds", lambda o: pod(o).update(terminationGracePeriodSeconds=10)),
    ("Secret", lambda o: o.append({"kind": "Secret", "metadata": {"name": "x"}})),
    ("password", lambda o: of(o, "ConfigMap", "bulk")["data"].update(x="amqp://a:b@c")),
    (
        "password",
        lambda o: first(o)["env"].append({"name": "HTTPS_PROXY", "value": "http://u:p@h"}),
    ),
    ("secretKeyRef", lambda o: first(o)["env"].append({"name": "EXCITE_TOKEN", "value": "x"})),
    ("NetworkPolicy", lambda o: o.remove(of(o, "NetworkPolicy", "worker"))),
    (
        "policyTypes",
        lambda o: of(o, "NetworkPolicy", "worker")["spec"].update(policyTypes=["Ingress"]),
    ),
    ("egress", lambda o: of(o, "NetworkPolicy", "worker")["spec"]["egress"][1].pop("to")),
    ("egress", lambda o: of(o, "NetworkPolicy", "worker")["spec"]["egress"][1].pop("ports")),
    (
        "metadata",
        lambda o: of(o, "NetworkPolicy", "worker")["spec"]["egress"][1]["to"][1]["ipBlock"].pop(
            "except"
        ),
    ),
    (
        "ports",
        lambda o: of(o, "NetworkPolicy", "worker")["spec"]["egress"][1]["ports"].append(
            {"port": 22}
        ),
    ),
    ("ingress", lambda o: of(o, "NetworkPolicy", "model")["spec"].update(ingress=[{}])),
    ("PodDisruptionBudget", lambda o: o.remove(of(o, "PodDisruptionBudget", "bulk"))),
    (
        "maxUnavailable",
        lambda o: of(o, "PodDisruptionBudget", "bulk")["spec"].update(maxUnavailable=0),
    ),
    ("replicas", lambda o: of(o, "Deployment", "bulk")["spec"].update(replicas=1)),
    (
        "do-not-disrupt",
        lambda o: annotations(o, "bulk").update({"karpenter.sh/do-not-disrupt": "true"}),
    ),
    ("do-not-disrupt", lambda o: annotations(o, "fast").pop("karpenter.sh/do-not-disrupt")),
    ("pools", lambda o: of(o, "ScaledObject", "bulk")["spec"].update(maxReplicaCount=41)),
    (
        "pools",
        lambda o: of(o, "ScaledObject", "bulk")["spec"]["triggers"][0]["metadata"].update(
            url="http://excite-dispatcher.images.svc:8080/v1/scale?pool=slow"
        ),
    ),
    ("behavior", lambda o: of(o, "ScaledObject", "bulk")["spec"]["fallback"].pop("behavior")),
    (
        "targetValue",
        lambda o: of(o, "ScaledObject", "bulk")["spec"]["triggers"][0]["metadata"].update(
            targetValue="2"
        ),
    ),
    (
        "scaleDown",
        lambda o: of(o, "ScaledObject", "bulk")["spec"]["advanced"][
            "horizontalPodAutoscalerConfig"
        ]["behavior"].pop("scaleDown"),
    ),
    (
        "selector",
        lambda o: of(o, "Deployment", "bulk")["spec"]["template"]["metadata"]["labels"].pop(
            "excite/pool"
        ),
    ),
    ("selector", lambda o: of(o, "Service")["spec"]["selector"].update(x="y")),
]


if __name__ == "__main__":
    sys.exit(main("policy", __doc__, check))
