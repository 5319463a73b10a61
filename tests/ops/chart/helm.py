"""Renders the chart with Helm itself, without a cluster: Helm installs it into an API server that
creates nothing, and the release that it kept has the objects, the hooks and the notes."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

import environment
from api_server import KEDA, PROMETHEUS, REFUSAL, ApiServer, Groups
from report import Failed

NAME, NAMESPACE = "excite", "images"
SUCCESS = 0


class HelmError(Failed):
    """What Helm says is wrong with chart or values."""


@dataclass
class Release:
    """What an install would create."""

    objects: list[dict]
    notes: str


class Helm:
    """The library. One is enough for a process, and loading it takes a second."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(str(environment.helm_library()))
        self.library.helm_sdkpy_last_error.restype = ctypes.c_char_p
        self.library.helm_sdkpy_free.argtypes = [ctypes.c_void_p]
        self.server = ApiServer()
        self.rendered: dict[str, Release] = {}
        self.scratch = tempfile.TemporaryDirectory(prefix="excite-chart-")
        self.kubeconfig = Path(self.scratch.name) / "kubeconfig"
        self.kubeconfig.write_text(self.server.kubeconfig())

    def render(
        self, chart: Path, values: dict, *, groups: Groups | None = None, version: str = "1.33"
    ) -> Release:
        """All objects, hooks too, as a cluster of a version with these operators would get them.
        What was rendered before is kept: copy what you change."""
        key = json.dumps([str(chart), values, groups, version])
        if key not in self.rendered:
            self.rendered[key] = self.install(chart, values, groups, version)
        return self.rendered[key]

    def install(self, chart: Path, values: dict, groups: Groups | None, version: str) -> Release:
        """Renders."""
        self.server.begin({**KEDA, **PROMETHEUS} if groups is None else groups, version)
        handle = self.handle()
        try:
            options = {
                "wait": False,
                "timeout_seconds": 30,
                "server_side_apply": "false",
                "disable_openapi_validation": True,
            }
            error = self.call(
                "install", handle, NAME, str(chart), json.dumps(values), "", json.dumps(options)
            )[1]
            release, missing = self.call("status", handle, NAME)
            if missing or REFUSAL not in error:
                raise HelmError(error or missing or "Helm created objects, which cannot be")
        finally:
            self.library.helm_sdkpy_config_destroy(handle)
        texts = [release["manifest"], *(hook["manifest"] for hook in release.get("hooks") or [])]
        objects = [
            found
            for text in texts
            for found in yaml.load_all(text, Loader=yaml.CSafeLoader)
            if found
        ]
        objects.sort(key=lambda found: (found["kind"], found["metadata"]["name"]))
        return Release(objects, release["info"].get("notes", ""))

    def lint(self, chart: Path) -> list[tuple[int, str]]:
        """The files in which `helm lint` finds something, and how bad it is; the library keeps what
        it is to itself."""
        handle = self.handle()
        try:
            with silence():
                found, error = self.call("lint", handle, str(chart))
        finally:
            self.library.helm_sdkpy_config_destroy(handle)
        if error:
            raise HelmError(error)
        return [(message["Severity"], message["Path"]) for message in found["Messages"]]

    def handle(self) -> ctypes.c_ulonglong:
        """A Helm that has no release yet."""
        handle = ctypes.c_ulonglong()
        done = self.library.helm_sdkpy_config_create(
            NAMESPACE.encode(), str(self.kubeconfig).encode(), None, b"{}", ctypes.byref(handle)
        )
        if done != SUCCESS:
            raise HelmError(self.last_error())
        return handle

    def call(self, action: str, handle: ctypes.c_ulonglong, *texts: str) -> tuple[dict, str]:
        """The answer of an action, or its error."""
        result = ctypes.c_void_p()
        act = getattr(self.library, f"helm_sdkpy_{action}")
        done = act(handle, *(text.encode() for text in texts), ctypes.byref(result))
        if done != SUCCESS:
            return {}, self.last_error()
        answer = json.loads(ctypes.string_at(result).decode())
        self.library.helm_sdkpy_free(result)
        return answer, ""

    def last_error(self) -> str:
        """What the last action of this thread said."""
        return (self.library.helm_sdkpy_last_error() or b"").decode()


@contextmanager
def silence() -> Iterator[None]:
    """Keeps what the library says by itself off standard error: when it lints, it logs what a
    template refuses, and takes it for well."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
