"""What Helm takes for a Kubernetes API server: it knows kinds, has no objects and creates none, for
all that is wanted of Helm is what it would create. Nothing of it leaves this machine."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Groups = dict[str, dict[str, str]]

CORE = {
    "ConfigMap": "configmaps",
    "Pod": "pods",
    "Secret": "secrets",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
    "PersistentVolumeClaim": "persistentvolumeclaims",
}
GROUPS: Groups = {
    "apps/v1": {"Deployment": "deployments"},
    "batch/v1": {"Job": "jobs"},
    "networking.k8s.io/v1": {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
}
# What operators add.
KEDA: Groups = {
    "keda.sh/v1alpha1": {
        "ScaledObject": "scaledobjects",
        "TriggerAuthentication": "triggerauthentications",
    }
}
PROMETHEUS: Groups = {
    "monitoring.coreos.com/v1": {"PodMonitor": "podmonitors", "PrometheusRule": "prometheusrules"}
}
# What the answer to every creation says.
REFUSAL = "nothing is created here"


class ApiServer:
    """Listens on a free port of this machine as long as the process lives."""

    def __init__(self) -> None:
        self.groups: Groups = {}
        self.version = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            """Answers clients of Kubernetes."""

            protocol_version = "HTTP/1.1"
            # Else each answer waits 40 ms for the acknowledgement of its head.
            disable_nagle_algorithm = True

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

            def answer(self, code: int, document: dict) -> None:
                """Sends a document."""
                body = json.dumps(document).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                """Says which kinds there are, and of no object that it is there."""
                found = outer.discovery(urlsplit(self.path).path)
                if found:
                    self.answer(200, found)
                else:
                    self.answer(404, failure(404, "NotFound", "not found"))

            def refuse(self) -> None:
                """Does nothing of what is asked for."""
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.answer(403, failure(403, "Forbidden", REFUSAL))

            do_POST = do_PUT = do_PATCH = do_DELETE = refuse

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def begin(self, groups: Groups, version: str) -> None:
        """A cluster of a version that knows these groups besides its own."""
        self.groups, self.version = {**GROUPS, **groups}, version

    def discovery(self, path: str) -> dict | None:
        """What clients ask for first."""
        if path == "/version":
            major, minor = self.version.split(".")
            return {"major": major, "minor": minor, "gitVersion": f"v{self.version}.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/api/v1":
            return resources("v1", CORE)
        if path == "/apis":
            groups = []
            for name in self.groups:
                group, version = name.split("/")
                entry = {"groupVersion": name, "version": version}
                groups.append({"name": group, "versions": [entry], "preferredVersion": entry})
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        name = path.removeprefix("/apis/")
        return resources(name, self.groups[name]) if name in self.groups else None

    def kubeconfig(self) -> str:
        """How Helm finds it."""
        address = f"http://127.0.0.1:{self.server.server_port}"
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "clusters": [{"name": "test", "cluster": {"server": address}}],
                "users": [{"name": "test", "user": {}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            }
        )


def resources(version: str, kinds: dict[str, str]) -> dict:
    """The answer about a group."""
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": version,
        "resources": [
            {
                "name": plural,
                "singularName": kind.lower(),
                "namespaced": True,
                "kind": kind,
                "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
            }
            for kind, plural in kinds.items()
        ],
    }


def failure(code: int, reason: str, message: str) -> dict:
    """An answer that says why there is none."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }
