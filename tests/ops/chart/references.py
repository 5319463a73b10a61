#!/usr/bin/env python3
"""Everything that an example's objects take from objects that the chart does not make must be named
in its notes, with its key: Secrets, ConfigMaps, claims. And the notes name nothing else."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import environment

environment.enter()

from charts import containers, plain, pods, variants  # noqa: E402
from helm import Helm, Release  # noqa: E402
from report import Failed, main  # noqa: E402


def check(helm: Helm | None = None) -> str:
    """All of it."""
    helm, chart = helm or Helm(), plain()
    faults, count = [], 0
    for name, values in variants().items():
        release = helm.render(chart, values)
        faults += [f"{name}: {fault}" for fault in differences(release)]
        # A line less, and a line more.
        lines = release.notes.splitlines()
        at = next(i for i, line in enumerate(lines) if line.startswith("  excite-broker / "))
        less = Release(release.objects, "\n".join(line for line in lines if line != lines[at]))
        again = any(
            line.rpartition(":")[0] == lines[at].rpartition(":")[0]
            for line in less.notes.splitlines()
        )
        more = Release(release.objects, release.notes + "\n  excite-other / url: nothing\n")
        if (not again and not differences(less)) or not differences(more):
            faults.append(f"{name}: notes that were changed pass: the check finds nothing any more")
        count += len(set(taken(release.objects)))
    if faults:
        raise Failed(faults)
    return f"{count} keys and claims of {len(variants())} renders are in their notes"


def differences(release: Release) -> list[str]:
    """What the notes lack, and what they have too much."""
    used = set(taken(release.objects))
    said = {
        line
        for text in re.findall(r"^  (.+?): ", release.notes, re.MULTILINE)
        if " / " in text or text.startswith("PersistentVolumeClaim ")
        for line in lines_of(text)
    }
    return [
        *(
            f"`{use}` is used and not in the notes; add it to _secrets.tpl"
            for use in sorted(used - said)
        ),
        *(
            f"`{line}` is in the notes, and nothing uses it; see _secrets.tpl"
            for line in sorted(said - used)
        ),
    ]


def lines_of(text: str) -> list[str]:
    """A line of the notes, for each key that it names."""
    name, _, keys = text.partition(" / ")
    return [f"{name} / {key}" for key in keys.split(" and ")] if keys else [text]


def taken(objects: list[dict]) -> Iterator[str]:
    """What is taken from objects that are not the chart's, as the notes name it."""
    own = {(found["kind"], found["metadata"]["name"]) for found in objects}
    for _, _, spec in pods(objects):
        for entry in spec.get("imagePullSecrets", []):
            yield f"{entry['name']} / .dockerconfigjson"
        for variable in (v for c in containers(spec) for v in c.get("env", [])):
            source = variable.get("valueFrom", {}).get("secretKeyRef")
            if source:
                yield f"{source['name']} / {source['key']}"
        for volume in spec.get("volumes", []):
            for kind, prefix, named in (
                ("secret", "", "secretName"),
                ("configMap", "ConfigMap ", "name"),
            ):
                part = volume.get(kind)
                if part and ("ConfigMap", part[named]) not in own:
                    yield from (f"{prefix}{part[named]} / {item['key']}" for item in part["items"])
            if "persistentVolumeClaim" in volume:
                yield f"PersistentVolumeClaim {volume['persistentVolumeClaim']['claimName']}"
    for found in objects:
        if found["kind"] == "TriggerAuthentication":
            yield from (
                f"{part['name']} / {part['key']}" for part in found["spec"]["secretTargetRef"]
            )
        if found["kind"] == "Ingress":
            yield from (
                f"{part['secretName']} / {key}"
                for part in found["spec"].get("tls", [])
                for key in ("tls.crt", "tls.key")
            )


if __name__ == "__main__":
    sys.exit(main("references", __doc__, check))
