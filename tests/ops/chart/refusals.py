#!/usr/bin/env python3
"""Values that must be refused, with a message that names the field, the value and the remedy: typos
everywhere, and what the programs themselves would refuse or wait for ever with."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import environment

environment.enter()

from api_server import KEDA, PROMETHEUS, Groups  # noqa: E402
from charts import load, merged, plain  # noqa: E402
from environment import CHART  # noqa: E402
from helm import Helm, HelmError  # noqa: E402
from report import Failed, main  # noqa: E402

# The least that is accepted.
BASE = {
    "images": {"registry": "registry.example/team"},
    "broker": {"existingSecret": "broker"},
    "progress": {"existingSecret": "progress"},
    "store": {"url": "s3://bucket", "region": "eu-west-1"},
    "access": {"tokens": {"existingSecret": "tokens"}},
    "models": {"emoji": {"class": "default", "source": "store"}},
    "workers": {"gpu": {"class": "default", "max": 4}},
}
POOL = "workers.gpu."


def pool(**keys: object) -> dict:
    """Something else of the one pool."""
    return {"workers": {"gpu": keys}}


# Values over BASE, and what the message must say.
CASES: list[tuple[dict, list[str]]] = [
    # Pools.
    ({"workers": {"gpu": None}}, ["workers: it is empty", "add a pool"]),
    ({"workers": {"GPU_1": {}}}, ["workers: `GPU_1`", "small letters"]),
    ({"workers": {"a-pool-with-a-name-of-25": {}}}, ["a-pool-with-a-name-of-25", "1 to 20"]),
    (pool(**{"class": "xl"}), [f"{POOL}class: it is `xl`", "no model", "use one of default"]),
    (pool(**{"class": "a b"}), [f"{POOL}class: `a b`", "letters"]),
    (pool(min=5), [f"{POOL}min: it is 5; use 0 to max, which is 4"]),
    (pool(min=-1), [f"{POOL}min: it is -1; use 0 or more"]),
    (pool(replicas=-2), [f"{POOL}replicas: it is -2; use 0 or more"]),
    (pool(pricePerHour=-0.5), [f"{POOL}pricePerHour: it is -0.5; use 0 or more"]),
    (pool(drainSeconds=0), [f"{POOL}drainSeconds: it is 0; use 1 or more"]),
    (pool(startSeconds=-1), [f"{POOL}startSeconds: it is -1; use 0 or more"]),
    (pool(gpu="nvidia"), [f"{POOL}gpu: `nvidia`", "nvidia.com/gpu"]),
    (pool(config={"precision": "f16"}), [f"{POOL}config.precision: it is `f16`", "set gpu"]),
    (pool(config={"slots": 0}), [f"{POOL}config.slots: it is 0; set it to 1 to 256"]),
    (pool(config={"batch_size": 8}), [f"{POOL}config.batch_size: it is 8", "slots, which is 4"]),
    (
        pool(config={"drain_seconds": 25}),
        [
            f"{POOL}terminationGracePeriodSeconds: it is 30",
            "config.drain_seconds, which is 25; use 35",
        ],
    ),
    (pool(resources={"limits": {"cpu": "2"}}), [f"{POOL}resources.limits.memory", "set it"]),
    (pool(image={"tag": "latest"}), [f"{POOL}image.tag: it is `latest`", "name a version"]),
    (pool(max=0) | {"autoscaling": {"enabled": True}}, [f"{POOL}max: it is 0", "use 1 or more"]),
    ({"workerDefaults": {"drainSeconds": 0.5}}, [f"{POOL}drainSeconds: it is 0.5"]),
    # Models.
    ({"models": {"emoji": None}}, ["models: it is empty", "bundled"]),
    ({"models": {"sd": {"class": "big"}}}, ["models.sd.class: it is `big`", "use one of default"]),
    ({"models": {"a b": {}}}, ["models: `a b`", "letters"]),
    ({"models": {"sd": {"source": "hub"}}}, ["models.sd.repository: it is empty"]),
    ({"models": {"sd": {"source": "volume"}}}, ["models.sd.claim: it is empty"]),
    (
        {"models": {"emoji": {"source": "hub", "repository": "a/b"}}},
        ["models.emoji.source", "bundled"],
    ),
    (
        {"models": {"sd": {"source": "bundled", "claim": "x"}}},
        ["models.sd.claim: it is `x`", "`volume`"],
    ),
    ({"models": {"sd": {"digest": "abc"}}}, ["models.sd.digest: it is `abc`", "64 digits"]),
    ({"models": {"emoji": {"source": "bundled"}}}, ["access.pushToken.existingSecret", "`admin`"]),
    (
        {"dispatcher": {"config": {"default_model": "sd"}}},
        ["dispatcher.config.default_model: it is `sd`", "use one of emoji"],
    ),
    (
        {"dispatcher": {"config": {"window_min": 9000}}},
        ["dispatcher.config.window_min: it is 9000", "which is 5000"],
    ),
    ({"dispatcher": {"config": {"window_min": 0}}}, ["dispatcher.config.window_min: it is 0"]),
    # Servers, Secrets, images.
    ({"broker": {"existingSecret": ""}}, ["broker.existingSecret: it is empty", "name the Secret"]),
    ({"progress": {"existingSecret": ""}}, ["progress.existingSecret: it is empty"]),
    ({"store": {"url": "bucket"}}, ["store.url: it is `bucket`", "s3://bucket"]),
    ({"store": {"region": ""}}, ["store.region: it is empty", "set the bucket's region"]),
    ({"broker": {"ca": {"secret": "a", "configMap": "b"}}}, ["broker.ca: it names", "one of them"]),
    (
        {"access": {"tokens": {"existingSecret": ""}}},
        ["access.tokens.existingSecret", "access.anyone"],
    ),
    ({"autoscaling": {"enabled": True}}, ["access.scaleToken.existingSecret", "`read`"]),
    ({"images": {"cli": {"tag": "latest"}}}, ["images.cli.tag: it is `latest`", "leave it empty"]),
    ({"images": {"registry": ""}}, ["images.registry: it is empty", "`Never`"]),
    ({"dispatcher": {"ingress": {"enabled": True}}}, ["dispatcher.ingress.host: it is empty"]),
    # What only the schema sees.
    (pool(capacity="cheap"), ["/workers/gpu/capacity", "onDemand"]),
    (pool(max="4"), ["/workers/gpu/max", "string", "integer"]),
    (pool(config={"device": "cpu"}), ["/workers/gpu/config", "device"]),
    ({"models": {"sd": {"source": "http"}}}, ["/models/sd/source", "bundled"]),
    ({"broker": {"port": 99999}}, ["/broker/port", "65,535"]),
    ({"access": {"tokens": {"key": "a b"}}}, ["/access/tokens/key"]),
    ({"models": {"emoji": {"typo": 1}}}, ["/models/emoji", "typo"]),
    (pool(tolerations=[{"typo": "x"}]), ["/workers/gpu/tolerations/0", "typo"]),
    (pool(extraEnv=[{"name": "A", "typo": "x"}]), ["/workers/gpu/extraEnv/0", "typo"]),
    (pool(resources={"typo": {}}), ["/workers/gpu/resources", "typo"]),
    (pool(affinity={"typo": {}}), ["/workers/gpu/affinity", "typo"]),
    ({"networkPolicy": {"clients": [{"typo": {}}]}}, ["/networkPolicy/clients/0", "typo"]),
    (
        {"networkPolicy": {"broker": [{"ipBlock": {"cidr": "10.0.0.0/8", "typo": 1}}]}},
        ["/networkPolicy/broker/0/ipBlock", "typo"],
    ),
    (
        {"autoscaling": {"behavior": {"scaleUp": {"policies": [{"typo": 1}]}}}},
        ["/autoscaling/behavior/scaleUp/policies/0", "typo"],
    ),
]
# Without operators: what needs them, and what the message must say.
WITHOUT: list[tuple[dict, Groups, list[str]]] = [
    (
        {"autoscaling": {"enabled": True}, "access": {"scaleToken": {"existingSecret": "s"}}},
        PROMETHEUS,
        ["autoscaling.enabled: it is true", "no KEDA", "install KEDA 2.17"],
    ),
    (
        {"monitoring": {"podMonitor": {"enabled": True}}},
        KEDA,
        ["monitoring.podMonitor.enabled: it is true", "no Prometheus operator"],
    ),
    (
        {"monitoring": {"rules": {"enabled": True}}},
        KEDA,
        ["monitoring.rules.enabled: it is true", "no Prometheus operator"],
    ),
]
# Values that are taken, and what the notes must say of them.
NOTES: list[tuple[dict, list[str]]] = [
    ({"autoscaling": {"enabled": False}}, ["Pools do not scale", "KEDA is here"]),
    ({"broker": {"policies": False}}, ["Queues have no policies yet"]),
    ({"store": {"existingSecret": ""}}, ["by the roles of", "set networkPolicy.metadata"]),
]
# Maps whose keys are anybody's: names, labels, and what goes into pods as it is.
FREE = {
    "commonLabels",
    "annotations",
    "podAnnotations",
    "podLabels",
    "labels",
    "nodeSelector",
    "affinity",
    "requests",
    "limits",
    "matchLabels",
    "namespaceSelector",
    "workers",
    "models",
    "resources",
}


def check(helm: Helm | None = None) -> str:
    """All of it."""
    helm, chart = helm or Helm(), plain()
    faults = []
    said = helm_says(helm, chart, BASE, None)
    if said:
        raise Failed(f"the values that the cases begin with are refused: {said}")
    for over, want in CASES:
        faults += compare(over, helm_says(helm, chart, merged(BASE, over), None), want)
    for over, groups, want in WITHOUT:
        faults += compare(over, helm_says(helm, chart, merged(BASE, over), groups), want)
    for over, want in NOTES:
        notes = helm.render(chart, merged(BASE, over)).notes
        faults += [f"{over}: the notes do not say `{part}`" for part in want if part not in notes]
    typos = list(misspelt(load(CHART / "values.yaml")))
    typos += [
        {"workers": {"gpu": typo}}
        for typo in misspelt(load(CHART / "values.yaml")["workerDefaults"])
    ]
    for typo in typos:
        faults += compare(typo, helm_says(helm, chart, merged(BASE, typo), None), ["typo"])
    if faults:
        raise Failed(faults)
    return (
        f"{len(CASES)} bad values, {len(WITHOUT)} missing operators and {len(typos)} typos are "
        "refused"
    )


def helm_says(helm: Helm, chart, values: dict, groups: Groups | None) -> str:
    """Why Helm refuses values; nothing if it takes them."""
    try:
        helm.render(chart, values, groups=groups)
    except HelmError as error:
        return str(error)
    return ""


def compare(over: dict, said: str, want: list[str]) -> list[str]:
    """What a message lacks."""
    if not said:
        return [f"{over} is accepted; it must be refused"]
    return [
        f"{over} is refused without saying `{part}`: {said}" for part in want if part not in said
    ]


def misspelt(values: dict) -> Iterator[dict]:
    """The same map with one key more, for each map inside whose keys are known."""
    yield {"typo": 1}
    for key, value in values.items():
        if isinstance(value, dict) and key not in FREE:
            for inner in misspelt(value):
                yield {key: inner}


if __name__ == "__main__":
    sys.exit(main("refusals", __doc__, check))
