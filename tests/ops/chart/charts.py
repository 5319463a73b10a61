"""The chart as the checks render it: copies of it, its examples, and what they have in common."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import yaml

from environment import CHART, ROOT

FIXTURES = Path(__file__).with_name("fixtures")
# Of the copies for golden renders: a release must not change them.
VERSION = "0.0.0"


def examples() -> dict[str, dict]:
    """Values of the examples by name."""
    found = {path.stem: load(path) for path in sorted((CHART / "examples").glob("*.yaml"))}
    if len(found) < 4:
        raise SystemExit(f"error: {CHART / 'examples'} has {len(found)} examples; 4 were expected")
    return found


def load(path: Path) -> dict:
    """A file of YAML."""
    return yaml.load(path.read_text(), Loader=yaml.CSafeLoader)


def variants() -> dict[str, dict]:
    """The examples, and values that say all that those do not."""
    more = {path.stem: load(path) for path in sorted((FIXTURES / "values").glob("*.yaml"))}
    return examples() | more


class Copies:
    """Copies of the chart that go with the process."""

    def __init__(self) -> None:
        self.scratch = tempfile.TemporaryDirectory(prefix="excite-chart-")
        self.count = 0

    def copy(
        self, *, version: str | None = None, fixtures: bool = False, values: dict | None = None
    ) -> Path:
        """A copy of another version, with rules and dashboards of the fixtures, or other defaults.

        Without rules of its own the chart gets those of the fixtures, too.
        """
        self.count += 1
        chart = Path(self.scratch.name) / str(self.count) / CHART.name
        shutil.copytree(CHART, chart, ignore=shutil.ignore_patterns("examples"))
        if fixtures or not (chart / "files/rules.yaml").exists():
            shutil.rmtree(chart / "files", ignore_errors=True)
            (chart / "files/dashboards").mkdir(parents=True)
            shutil.copy(FIXTURES / "rules.yaml", chart / "files/rules.yaml")
            shutil.copy(FIXTURES / "dashboard.json", chart / "files/dashboards/example.json")
        if version:
            head = load(chart / "Chart.yaml") | {"version": version, "appVersion": version}
            (chart / "Chart.yaml").write_text(yaml.safe_dump(head))
        if values is not None:
            (chart / "values.yaml").write_text(yaml.safe_dump(values))
        return chart


COPIES = Copies()


@cache
def plain() -> Path:
    """A copy as it is: what most checks look at, made once, so that what is rendered of it is."""
    return COPIES.copy()


def merged(under: dict, over: dict) -> dict:
    """Values over others, as Helm lays them: maps are merged, the rest replaced, null removes."""
    result = dict(under)
    for key, value in over.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def name_of(found: dict) -> str:
    """How messages name an object."""
    return f"{found['kind']} {found['metadata']['name']}"


def pods(objects: list[dict]) -> Iterator[tuple[dict, dict, dict]]:
    """Everything that makes pods: the object, labels and annotations of its pods, their spec."""
    for found in objects:
        if found["kind"] == "Pod":
            yield found, found["metadata"], found["spec"]
        elif found["kind"] in ("Deployment", "Job"):
            template = found["spec"]["template"]
            yield found, template["metadata"], template["spec"]


def containers(spec: dict) -> list[dict]:
    """All containers of a pod."""
    return [*spec.get("initContainers", []), *spec["containers"]]


def workspace_version() -> str:
    """The version of the programs."""
    lines = (ROOT / "Cargo.toml").read_text().splitlines()
    at = lines.index("[workspace.package]")
    line = next(line for line in lines[at:] if line.startswith("version = "))
    return line.split('"')[1]
