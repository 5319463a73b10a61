"""The rules of policy.py: each looks at all objects of a release and names what breaks it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator

from charts import containers, name_of, pods
from environment import ROOT
from report import Failed

Objects = list[dict]
Rule = Callable[[Objects], list[str]]

PROBES = {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
PORTS = {"dispatcher": "http", "worker": "metrics"}
# Addresses that give a machine's role away, and how a network is kept from them.
METADATA = "169.254.0.0/16"
# What was simulated, as what the chart sets: how pools shrink.
SIMULATED = ROOT / "tests/src/bin/excite-scaling.rs"
# And how they grow: as the HPA does by default.
UP = [
    {"type": "Percent", "value": 100, "periodSeconds": 15},
    {"type": "Pods", "value": 4, "periodSeconds": 15},
]


def deployments(objects: Objects) -> Iterator[dict]:
    """What runs all the time."""
    return (found for found in objects if found["kind"] == "Deployment")


def component(found: dict) -> str:
    """What an object is a part of."""
    return found["metadata"]["labels"].get("app.kubernetes.io/component", "")


def rights(objects: Objects) -> list[str]:
    """Pods and accounts have none that they do not need."""
    faults = []
    for found, _, spec in pods(objects):
        security = spec.get("securityContext", {})
        wanted = {
            "automountServiceAccountToken": (spec.get("automountServiceAccountToken"), False),
            "enableServiceLinks": (spec.get("enableServiceLinks"), False),
            "hostNetwork": (spec.get("hostNetwork", False), False),
            "hostPID": (spec.get("hostPID", False), False),
            "securityContext.runAsNonRoot": (security.get("runAsNonRoot"), True),
            "securityContext.seccompProfile": (
                security.get("seccompProfile"),
                {"type": "RuntimeDefault"},
            ),
        }
        for container in containers(spec):
            own = container.get("securityContext", {})
            wanted |= {
                f"{container['name']}: {key}": (own.get(key), want)
                for key, want in {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                    "privileged": None,
                }.items()
            }
        faults += [
            f"{name_of(found)}: {key} is {is_}; set it to {want}"
            for key, (is_, want) in wanted.items()
            if is_ != want
        ]
    for found in objects:
        if (
            found["kind"] == "ServiceAccount"
            and found.get("automountServiceAccountToken") is not False
        ):
            faults.append(f"{name_of(found)}: automountServiceAccountToken is not false; set it")
    return faults


def volumes(objects: Objects) -> list[str]:
    """Nothing of the node is mounted, and what is written to has an end."""
    faults = []
    for found, _, spec in pods(objects):
        for volume in spec.get("volumes", []):
            if "hostPath" in volume:
                faults.append(
                    f"{name_of(found)}: volume {volume['name']} is a hostPath; use another"
                )
            if "emptyDir" in volume and not (volume["emptyDir"] or {}).get("sizeLimit"):
                faults.append(
                    f"{name_of(found)}: volume {volume['name']} has no sizeLimit; set one"
                )
        writable = {volume["name"] for volume in spec.get("volumes", []) if "emptyDir" in volume}
        for container in containers(spec):
            faults += [
                f"{name_of(found)}: {mount['mountPath']} is not readOnly; set it"
                for mount in container.get("volumeMounts", [])
                if mount["name"] not in writable and not mount.get("readOnly")
            ]
    return faults


def resources(objects: Objects) -> list[str]:
    """Requests and limits: memory always, CPU where threads are counted by it, GPUs as both."""
    faults = []
    for found, _, spec in pods(objects):
        for container in containers(spec):
            amounts = container.get("resources", {})
            wanted = ["requests.cpu", "requests.memory", "limits.memory"]
            wanted += ["limits.cpu"] if component(found) == "worker" else []
            for key in wanted:
                which, what = key.split(".")
                if what not in amounts.get(which, {}):
                    faults.append(f"{name_of(found)}: resources.{key} is not set; set it")
            for name, amount in amounts.get("limits", {}).items():
                if "/" in name and amounts.get("requests", {}).get(name) != amount:
                    faults.append(
                        f"{name_of(found)}: the request of {name} is not its limit; make them equal"
                    )
    return faults


def images(objects: Objects) -> list[str]:
    """Every image is one version."""
    good = re.compile(r".+/[^/:@]+(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})$")
    return [
        f"{name_of(found)}: image {container['image']} names no version; add a tag or digest"
        for found, _, spec in pods(objects)
        for container in containers(spec)
        if not good.fullmatch(container["image"])
    ]


def probes(objects: Objects) -> list[str]:
    """Services have all three, where the programs serve them, and time to hand over."""
    faults = []
    for found in deployments(objects):
        spec = found["spec"]["template"]["spec"]
        container = spec["containers"][0]
        for name, path in PROBES.items():
            wanted = {"path": path, "port": PORTS[component(found)]}
            asked = container.get(name, {}).get("httpGet")
            if asked != wanted:
                faults.append(f"{name_of(found)}: {name} asks {asked}; use {wanted}")
        if spec.get("terminationGracePeriodSeconds", 0) < 30:
            faults.append(
                f"{name_of(found)}: terminationGracePeriodSeconds is less than 30; set it"
            )
    return faults


def secrets(objects: Objects) -> list[str]:
    """None is made, and none stands in the open."""
    faults = [
        f"{name_of(found)}: the chart makes a Secret; take the name of one that exists"
        for found in objects
        if found["kind"] == "Secret"
    ]
    password = re.compile(r"://[^/\s:@]*:[^/\s@]+@|excite_[0-9a-f]{16}")
    texts = [
        (found, text)
        for found in objects
        if found["kind"] == "ConfigMap"
        for text in found["data"].values()
    ]
    for found, _, spec in pods(objects):
        for container in containers(spec):
            for variable in container.get("env", []):
                if "value" not in variable:
                    continue
                texts.append((found, variable["value"]))
                if re.search(r"TOKEN|SECRET|PASSWORD|ACCESS_KEY|__URL", variable["name"]):
                    faults.append(
                        f"{name_of(found)}: {variable['name']} has a plain value; take it "
                        "from a Secret (secretKeyRef)"
                    )
            texts += [
                (found, text)
                for text in [*container.get("args", []), *container.get("command", [])]
            ]
    return faults + [
        f"{name_of(found)}: there is a password in `{text[:40]}`; take it out"
        for found, text in texts
        if password.search(text)
    ]


def networks(objects: Objects) -> list[str]:
    """Every pod has a policy for both ways, which leads to few ports and to no metadata service."""
    faults = []
    policies = [found for found in objects if found["kind"] == "NetworkPolicy"]
    for found, metadata, _ in pods(objects):
        labels = metadata["labels"].items()
        if not any(
            policy["spec"]["podSelector"]["matchLabels"].items() <= labels for policy in policies
        ):
            faults.append(f"{name_of(found)}: no NetworkPolicy is for it; add one")
    for policy in policies:
        spec, name = policy["spec"], name_of(policy)
        if sorted(spec["policyTypes"]) != ["Egress", "Ingress"]:
            faults.append(f"{name}: policyTypes are {spec['policyTypes']}; use both")
        if spec.get("ingress") and component(policy) not in PORTS:
            faults.append(f"{name}: ingress is open; nobody talks to these pods")
        for rule in spec.get("egress", []):
            if not rule.get("to") or not rule.get("ports"):
                faults.append(f"{name}: egress to everywhere; name peers and ports")
            if len(rule.get("ports", [])) > 1 and {p["port"] for p in rule["ports"]} not in (
                {53},
                {80, 988},
            ):
                faults.append(
                    f"{name}: egress to several ports {rule['ports']}; use a rule for each"
                )
            for block in (peer["ipBlock"] for peer in rule.get("to", []) if "ipBlock" in peer):
                if block["cidr"] == "0.0.0.0/0" and METADATA not in block.get("except", []):
                    faults.append(f"{name}: egress leads to metadata services; except {METADATA}")
    return faults


def disruptions(objects: Objects) -> list[str]:
    """Nodes can be drained, and not of all workers; only what gains by it stays where it is."""
    faults = []
    budgets = {
        found["metadata"]["name"]: found["spec"]
        for found in objects
        if found["kind"] == "PodDisruptionBudget"
    }
    for found in deployments(objects):
        budget = budgets.get(found["metadata"]["name"])
        wanted = "50%" if component(found) == "worker" else 1
        if not budget:
            faults.append(f"{name_of(found)}: there is no PodDisruptionBudget; add one")
        elif budget.get("maxUnavailable") != wanted:
            faults.append(
                f"{name_of(found)}: maxUnavailable is {budget.get('maxUnavailable')}; use {wanted}"
            )
        template = found["spec"]["template"]
        spot = "spot" in str(template["spec"].get("nodeSelector"))
        stays = "karpenter.sh/do-not-disrupt" in template["metadata"]["annotations"]
        if component(found) == "worker" and stays == spot:
            faults.append(
                f"{name_of(found)}: do-not-disrupt is {stays}; only pods on demand have it"
            )
    return faults


def simulated() -> tuple[int, int, int]:
    """How pools shrink in what docs/scaling.md compares: window, per cent a minute, cooldown."""
    numbers = re.search(
        r"const OURS: Behaviour =\s*Behaviour \{ stabilization_seconds: ([\d.]+), "
        r"down_share: ([\d.]+), cooldown_seconds: ([\d.]+) \};",
        SIMULATED.read_text(),
    )
    if not numbers:
        raise Failed(f"{SIMULATED.relative_to(ROOT)}: there is no `OURS` any more; mend rules.py")
    window, share, cooldown = (float(number) for number in numbers.groups())
    return int(window), int(share * 100), int(cooldown)


def scaling(objects: Objects) -> list[str]:
    """Pools follow the dispatcher: the one that has such pools, by the figures that were chosen."""
    faults = []
    found_pools = pools(objects)
    scaled = {
        found["spec"]["scaleTargetRef"]["name"]: found
        for found in objects
        if found["kind"] == "ScaledObject"
    }
    for found in deployments(objects):
        by_keda = found["metadata"]["name"] in scaled
        if by_keda == ("replicas" in found["spec"]):
            faults.append(f"{name_of(found)}: replicas and a ScaledObject; use one of them")
    for found in scaled.values():
        spec, name = found["spec"], name_of(found)
        trigger = spec["triggers"][0]["metadata"]
        pool = found_pools.get(trigger["url"].rpartition("?pool=")[2])
        limits = (spec["minReplicaCount"], spec["maxReplicaCount"])
        if not pool or limits != (pool["min"], pool["max"]):
            faults.append(
                f"{name}: {trigger['url']} and {limits} are not in the dispatcher's pools "
                f"{found_pools}; make them equal"
            )
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        up, shrink = behavior.get("scaleUp", {}), behavior.get("scaleDown", {})
        window, share, cooldown = simulated()
        down = [{"type": "Percent", "value": share, "periodSeconds": 60}]
        figures = {
            "cooldownPeriod": (spec.get("cooldownPeriod"), cooldown),
            "fallback.behavior": (spec["fallback"].get("behavior"), "currentReplicas"),
            "fallback.failureThreshold": (spec["fallback"].get("failureThreshold"), 3),
            "targetValue": (trigger["targetValue"], "1"),
            "valueLocation": (trigger["valueLocation"], "desired"),
            "metricType": (spec["triggers"][0]["metricType"], "AverageValue"),
            "scaleUp": (up.get("policies"), UP),
            "scaleUp.stabilizationWindowSeconds": (up.get("stabilizationWindowSeconds"), 0),
            "scaleDown": (shrink.get("policies"), down),
            "scaleDown.stabilizationWindowSeconds": (
                shrink.get("stabilizationWindowSeconds"),
                window,
            ),
        }
        faults += [
            f"{name}: {key} is {is_}; use {want}"
            for key, (is_, want) in figures.items()
            if is_ != want
        ]
    return faults


def pools(objects: Objects) -> dict[str, dict]:
    """The pools that the dispatcher is told of."""
    for found in objects:
        if (
            found["kind"] == "ConfigMap"
            and component(found) == "dispatcher"
            and "excite.toml" in found["data"]
        ):
            return tomllib.loads(found["data"]["excite.toml"])["dispatcher"]["pools"]
    return {}


def selectors(objects: Objects) -> list[str]:
    """Whatever selects pods finds some."""
    faults = []
    labels = [metadata["labels"].items() for _, metadata, _ in pods(objects)]
    for found in objects:
        spec = found.get("spec", {})
        selector = spec.get("selector", {})
        wanted = selector.get("matchLabels", selector if found["kind"] == "Service" else None)
        if found["kind"] == "Deployment":
            own = spec["template"]["metadata"]["labels"].items()
            if not wanted.items() <= own:
                faults.append(f"{name_of(found)}: its selector {wanted} is not in its pods' labels")
        elif wanted and not any(wanted.items() <= there for there in labels):
            faults.append(f"{name_of(found)}: its selector {wanted} finds no pod")
    return faults


def names(objects: Objects) -> list[str]:
    """Names fit into the labels that Kubernetes makes of them, and are one object's."""
    faults = []
    seen = set()
    for found in objects:
        name = found["metadata"]["name"]
        if len(name) > 63 or not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name):
            faults.append(f"{name_of(found)}: the name has {len(name)} letters; use 63 small ones")
        if name_of(found) in seen:
            faults.append(f"{name_of(found)}: there are two of this name; make them differ")
        seen.add(name_of(found))
    return faults


ALL: list[Rule] = [
    names,
    rights,
    volumes,
    resources,
    images,
    probes,
    secrets,
    networks,
    disruptions,
    scaling,
    selectors,
]
