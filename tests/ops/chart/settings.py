#!/usr/bin/env python3
"""Everything that the chart tells the programs must be something they know: keys of excite.toml and
their kinds, environment variables, commands and flags, ports and probes, and the files that they
are pointed at."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import environment

environment.enter()

from charts import containers, load, name_of, plain, pods, variants  # noqa: E402
from environment import CHART, ROOT  # noqa: E402
from helm import Helm  # noqa: E402
from report import Failed, main  # noqa: E402

# Compared with the programs by tests of theirs, `the_page_of_settings_has_them`.
PAGE = ROOT / "docs/operations.md"
# What others read in the environment, by the page or the source that says so.
OTHERS = {
    "HTTPS_PROXY": ROOT / "crates/hub/src/environment.rs",
    "RAYON_NUM_THREADS": PAGE,
    "AWS_ACCESS_KEY_ID": PAGE,
    "AWS_SECRET_ACCESS_KEY": PAGE,
    "HF_TOKEN": ROOT / "crates/hub/src/environment.rs",
    "HF_ENDPOINT": ROOT / "crates/hub/src/environment.rs",
}
COMMANDS = {
    "excite": ROOT / "crates/cli/src/args",
    "excite-worker": ROOT / "crates/worker/src",
    "excite-dispatcher": ROOT / "crates/dispatcher/src",
}
PROGRAMS = {
    "dispatcher": "excite-dispatcher",
    "worker": "excite-worker",
    "policies": "excite-dispatcher",
}
Objects = list[dict]


def check(helm: Helm | None = None) -> str:
    """All of it."""
    helm = helm or Helm()
    known = settings()
    faults = [
        f"values.schema.json: {key} is no setting of {PAGE.name}; take it out"
        for key in offered()
        if key not in known
    ]
    rendered: dict[str, Objects] = {}
    for name, values in variants().items():
        objects = helm.render(plain(), values).objects
        rendered[name] = objects
        faults += [f"{name}: {fault}" for fault in unknown(objects, known)]
    written = {
        key for objects in rendered.values() for _, toml in tomls(objects) for key, _ in flat(toml)
    }
    faults += [
        f"{key} is offered by values, and no render has it; add it to fixtures/values"
        for key in offered()
        if key not in written
    ]
    if faults:
        raise Failed(faults)
    everything = rendered["everything"]
    unnoticed = [word for word, breaks in BREAKS if not noticed(everything, breaks, word, known)]
    if unnoticed:
        raise Failed(
            [f"objects that were broken pass, where `{word}` should be said" for word in unnoticed]
        )
    return (
        f"{len(written)} keys, variables, flags, ports and paths are the programs'; "
        f"{len(BREAKS)} wrong ones are noticed{programs(rendered)}"
    )


def settings() -> dict[str, object]:
    """Keys of the page's tables, with their defaults."""
    rows = re.findall(r"^\| `([a-z]+\.[\w.]+)` \| `(.*?)` \|", PAGE.read_text(), re.MULTILINE)
    found = {key: json.loads(default) for key, default in rows}
    if len(found) < 40:
        raise Failed(f"{PAGE.name} has {len(found)} rows of settings; has its table another form?")
    return found


def offered() -> Iterator[str]:
    """The settings that values may have by the programs' own names."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    pool = schema["definitions"]["pool"]["properties"]["config"]["properties"]
    yield from (f"worker.{key}" for key in pool)
    dispatcher = schema["properties"]["dispatcher"]["properties"]["config"]["properties"]
    yield from (f"dispatcher.{key}" for key in dispatcher)
    yield from (f"log.{key}" for key in load(CHART / "values.yaml")["log"])


def tomls(objects: Objects) -> Iterator[tuple[dict, dict]]:
    """The configurations."""
    for found in objects:
        if found["kind"] == "ConfigMap" and "excite.toml" in found["data"]:
            yield found, tomllib.loads(found["data"]["excite.toml"])


def flat(toml: dict) -> Iterator[tuple[str, object]]:
    """Keys and values, with pools under the one name that the page has."""
    for section, values in toml.items():
        for key, value in values.items():
            if section == "dispatcher" and key == "pools":
                for pool in value.values():
                    yield from (
                        (f"dispatcher.pools.NAME.{inner}", set_) for inner, set_ in pool.items()
                    )
            else:
                yield f"{section}.{key}", value


def unknown(objects: Objects, known: dict[str, object]) -> list[str]:
    """What no program knows."""
    faults = []
    for found, toml in tomls(objects):
        for key, value in flat(toml):
            if key not in known:
                faults.append(f"{name_of(found)}: {key} is no setting; see {PAGE.name}")
            elif not fits(value, known[key]):
                faults.append(
                    f"{name_of(found)}: {key} is {value!r}, and its default is "
                    f"{known[key]!r}; use the same kind"
                )
    for found, _, spec in pods(objects):
        for container in containers(spec):
            where = f"{name_of(found)}, {container['name']}"
            faults += [
                f"{where}: {fault}"
                for fault in [
                    *variables(container, known),
                    *commands(found, container),
                    *paths(objects, spec, container),
                    *ports(objects, spec, container),
                ]
            ]
    return faults


def fits(value: object, default: object) -> bool:
    """Whether a value is of the default's kind. A null says nothing, and `auto` may be a number."""
    if default is None or default == "auto":
        return True
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


def variables(container: dict, known: dict[str, object]) -> Iterator[str]:
    """Names in the environment."""
    for name in (variable["name"] for variable in container.get("env", [])):
        if "__" in name:
            key = name.removeprefix("EXCITE_").lower().replace("__", ".")
            if not name.startswith("EXCITE_") or key not in known:
                yield f"{name} is no setting; see {PAGE.name}"
        elif name.startswith("EXCITE_"):
            if f'"{name}"' not in sources(ROOT / "crates"):
                yield f"no program reads {name}; take it out"
        elif name not in OTHERS or name not in OTHERS[name].read_text():
            yield f"{name} is read by nobody that is known; add it to OTHERS in settings.py"


def commands(found: dict, container: dict) -> Iterator[str]:
    """Commands and flags."""
    component = found["metadata"]["labels"]["app.kubernetes.io/component"]
    calls = []
    if "command" not in container:
        args = container.get("args", [])
        # The file comes first, the command behind it.
        calls.append(
            (PROGRAMS[component], [*args[2:], *args[:2]] if args[:1] == ["--config"] else args)
        )
    else:
        for line in container["command"][2].splitlines():
            calls += [
                ("excite", words.split())
                for words in re.findall(r"(?:^|[\s(])excite ([^|)>]*)", line)
            ]
        # What is handed on to `model pull`.
        calls.append(
            ("excite", [word for word in container["command"][4:] if str(word).startswith("--")])
        )
    for program, words in calls:
        source = sources(COMMANDS[program])
        for word in words:
            name = word.removeprefix("--").replace("-", "_")
            if word.startswith("--") and not re.search(rf"\b{name}: ", source):
                yield f"`{program}` has no {word}"
        for word in words[:2]:
            if re.fullmatch(r"[a-z]+", word) and not re.search(rf"\b{word.title()}\b", source):
                yield f"`{program}` has no command {word}"


@cache
def sources(folder: Path) -> str:
    """All Rust of a folder, and of the file of its name."""
    files = [*sorted(folder.rglob("*.rs")), folder.with_suffix(".rs")]
    return "\n".join(path.read_text() for path in files if path.exists())


def paths(objects: Objects, spec: dict, container: dict) -> Iterator[str]:
    """Files and folders that the configuration names are mounted, and where it writes can be."""
    mounts = {mount["mountPath"]: mount for mount in container.get("volumeMounts", [])}
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    config = volumes.get("config", {}).get("configMap", {}).get("name")
    named = dict(
        flat(
            next(
                (toml for found, toml in tomls(objects) if found["metadata"]["name"] == config), {}
            )
        )
    )
    job = container["name"] == "policies"
    for key, value in named.items():
        if not re.search(r"(_file|_dir)$", key) or (job and not key.startswith("broker.")):
            continue
        folder = str(Path(str(value)).parent) if key.endswith("_file") else str(value)
        over = [
            mount
            for path, mount in mounts.items()
            if path == folder or path.startswith(f"{folder}/")
        ]
        if not over:
            yield f"{key} is {value}, and nothing is mounted there"
        elif key.endswith("_file"):
            volume = volumes[over[0]["name"]]
            items = (volume.get("secret") or volume.get("configMap") or {}).get("items", [])
            if Path(str(value)).name not in [item["path"] for item in items]:
                yield f"{key} is {value}, and its volume has no such file"
        elif key == "worker.cache_dir" and over[0].get("readOnly"):
            yield f"{key} is {value}, and it cannot be written to"
    if "--config" in container.get("args", []) and "/etc/excite" not in mounts:
        yield "--config names a file, and nothing is mounted there"


def ports(objects: Objects, spec: dict, container: dict) -> Iterator[str]:
    """A service listens where its container says, and its probes are served."""
    config = next(
        (
            volume["configMap"]["name"]
            for volume in spec.get("volumes", [])
            if volume["name"] == "config"
        ),
        None,
    )
    toml = next((toml for found, toml in tomls(objects) if found["metadata"]["name"] == config), {})
    declared = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
    for name, port in declared.items():
        listen = toml.get(container["name"], {}).get("listen", "")
        if listen != f"0.0.0.0:{port}":
            yield f"port {name} is {port}, and {container['name']}.listen is {listen}"
    served = (ROOT / "crates/service/src/health.rs").read_text()
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        ask = container.get(probe, {}).get("httpGet")
        if ask and (f'"{ask["path"]}"' not in served or ask["port"] not in declared):
            yield f"{probe} asks {ask}, which is not served"


def programs(rendered: dict[str, Objects]) -> str:
    """Lets programs that are built here read what is rendered, and check it as at their start."""
    found = {
        name: path
        for name in ("excite-dispatcher", "excite-worker")
        for path in (ROOT / "target/release" / name, ROOT / "target/debug" / name)
        if path.exists()
    }
    if not found:
        return "; no built programs to read them"
    for objects in rendered.values():
        for config, toml in tomls(objects):
            name = "excite-worker" if "worker" in toml else "excite-dispatcher"
            if name not in found:
                continue
            with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
                # Folders of pods are not there.
                file.write(re.sub(r"(?m)^models_dir = .*$", "", config["data"]["excite.toml"]))
                file.flush()
                done = subprocess.run(
                    [found[name], "--config", file.name, "--print-config"],
                    capture_output=True,
                    text=True,
                    check=False,
                )
            if done.returncode != 0:
                raise Failed(f"{name_of(config)}: {name} refuses it: {done.stderr.strip()}")
    return f"; {' and '.join(sorted(found))} read all of them"


def noticed(
    objects: Objects, breaks: Callable[[Objects], object], word: str, known: dict[str, object]
) -> bool:
    """Whether what was broken is found, by what is said of it."""
    broken = copy.deepcopy(objects)
    breaks(broken)
    return any(word in fault for fault in unknown(broken, known))


def config_of(objects: Objects, old: str, new: str, end: str = "worker-cpu") -> None:
    """Changes a configuration."""
    found = next(found for found, _ in tomls(objects) if found["metadata"]["name"].endswith(end))
    text = found["data"]["excite.toml"]
    assert old in text, f"{old} is not in {text}"
    found["data"]["excite.toml"] = text.replace(old, new)


def container_of(objects: Objects, kind: str, part: str) -> dict:
    """A container, to be broken."""
    for found, _, spec in pods(objects):
        if found["kind"] == kind and part in found["metadata"]["name"]:
            return spec["containers"][0]
    raise AssertionError(f"there is no {kind} with {part} in its name")


def worker_of(objects: Objects) -> dict:
    """The container of a worker, to be broken."""
    return container_of(objects, "Deployment", "worker-cpu")


def env_of(objects: Objects, name: str) -> None:
    """A variable more."""
    worker_of(objects)["env"].append({"name": name, "value": "x"})


# What is broken, and what must be said of it; in fixtures/values/everything.yaml.
BREAKS: list[tuple[str, Callable[[Objects], object]]] = [
    ("worker.slot is no setting", lambda o: config_of(o, "slots = ", "slot = ")),
    ("worker.slots is 8.0", lambda o: config_of(o, "slots = 8", "slots = 8.0")),
    ("worker.reuse is 'no'", lambda o: config_of(o, "reuse = false", 'reuse = "no"')),
    ("broker.ca_file is /ca", lambda o: config_of(o, "/etc/excite-ca/broker/ca.crt", "/ca")),
    ("worker.cache_dir", lambda o: config_of(o, "/var/cache/excite", "/cache")),
    ("port metrics", lambda o: config_of(o, "9464", "9465")),
    (
        "dispatcher.pools.NAME.most",
        lambda o: config_of(o, "max = 3\n", "most = 3\n", "dispatcher"),
    ),
    ("EXCITE_BROKER__URI is no setting", lambda o: env_of(o, "EXCITE_BROKER__URI")),
    ("EXCITE_SLOTS", lambda o: env_of(o, "EXCITE_SLOTS")),
    ("REDIS_URL", lambda o: env_of(o, "REDIS_URL")),
    ("no --configuration", lambda o: worker_of(o)["args"].append("--configuration")),
    (
        "no command topologie",
        lambda o: container_of(o, "Job", "policies")["args"].__setitem__(2, "topologie"),
    ),
    (
        "no --sedes",
        lambda o: container_of(o, "Job", "model")["command"].__setitem__(
            2, "excite submit --sedes"
        ),
    ),
    (
        "which is not served",
        lambda o: worker_of(o)["livenessProbe"]["httpGet"].update(path="/livez"),
    ),
]


if __name__ == "__main__":
    sys.exit(main("settings", __doc__, check))
