"""Checks docker/compose.yaml: whether docker-compose takes it, and whether it keeps its promises
about addresses, passwords and rights."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import tools
from report import Failed, Skipped
from tools import CACHE, ROOT, run

FILE = ROOT / "docker/compose.yaml"
# Services that are programs of this project.
OURS = ("topology", "dispatcher", "model", "worker", "cli")


class Compose:
    """The file, as docker-compose reads it."""

    def __init__(self) -> None:
        self.read: dict | None = None

    def config(self, file: Path, *words: str, may_fail: bool = False):
        """Runs `docker-compose config`; it needs no engine."""
        command = [tools.docker_compose(), "-f", file, "--profile", "cli", "config", *words]
        return run(command, may_fail=may_fail)

    def valid(self) -> str:
        """Reads it."""
        self.config(FILE, "-q")
        self.read = json.loads(self.config(FILE, "--format", "json").stdout)
        return f"{len(self.read['services'])} services"

    def strict(self) -> str:
        """An unknown key must be refused: else `valid` would say little."""
        broken = FILE.with_name("compose.broken.tmp")
        try:
            broken.write_text(FILE.read_text().replace("    hostname:", "    hostnam:", 1))
            done = self.config(broken, "-q", may_fail=True)
        finally:
            broken.unlink(missing_ok=True)
        if done.returncode == 0 or "hostnam" not in done.stderr:
            raise Failed(f"docker-compose takes the unknown key `hostnam`: status "
                         f"{done.returncode}, {done.stderr.strip()[-200:]}")
        return f"`hostnam` is refused with status {done.returncode}"

    def services(self) -> dict[str, dict]:
        if self.read is None:
            raise Skipped("docker-compose did not read the file")
        return self.read["services"]

    def service(self, name: str) -> dict:
        return self.services()[name]

    def confined(self) -> str:
        """Ports, rights and versions."""
        for name, service in self.services().items():
            for port in service.get("ports", []):
                if port.get("host_ip") != "127.0.0.1":
                    raise Failed(f"{name}: ports: {port['target']} can be reached from other "
                                 "machines; write `127.0.0.1:PORT:PORT`")
            tag = service["image"].rpartition(":")[2]
            if "/" in tag or tag in ("", "latest"):
                raise Failed(f"{name}: image: `{service['image']}` names no version; add one")
        for name in OURS:
            service = self.service(name)
            for key, want in (("read_only", True), ("cap_drop", ["ALL"]), ("tmpfs", ["/tmp"]),
                              ("security_opt", ["no-new-privileges:true"])):
                if service.get(key) != want:
                    raise Failed(f"{name}: {key}: it is `{service.get(key)}`; write `{want}`")
        return "ports on 127.0.0.1, versions named, our programs without rights"

    def order(self) -> str:
        """What waits for a service must wait until it is well or done, never just begun."""
        services = self.services()
        for name, service in services.items():
            for other, condition in service.get("depends_on", {}).items():
                kind = condition["condition"]
                if kind == "service_healthy" and "healthcheck" not in services[other]:
                    raise Failed(f"{name} waits until {other} is well, which has no healthcheck; "
                                 "add one")
                if kind == "service_started":
                    raise Failed(f"{name}: depends_on: {other} is only started; use "
                                 "`service_healthy`")
        return "each service waits until what it needs is well or done"

    def passwords(self) -> str:
        """The development defaults have to agree, and to be marked."""
        services = self.services()
        rabbit, s3 = services["rabbitmq"]["environment"], services["s3"]["environment"]
        user = (rabbit["RABBITMQ_DEFAULT_USER"], rabbit["RABBITMQ_DEFAULT_PASS"])
        keys = (s3["ROOT_ACCESS_KEY_ID"], s3["ROOT_SECRET_ACCESS_KEY"])
        for name in ("topology", "dispatcher", "worker"):
            env = services[name]["environment"]
            broker = urlsplit(env["EXCITE_BROKER__URL"])
            if (broker.username, broker.password) != user:
                raise Failed(f"{name}: EXCITE_BROKER__URL has other credentials than RabbitMQ")
            if (env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]) != keys:
                raise Failed(f"{name}: AWS_ACCESS_KEY_ID and its secret are not those of s3")
        management = urlsplit(services["topology"]["environment"]["EXCITE_MANAGEMENT_URL"])
        if (management.username, management.password) != user:
            raise Failed("topology: EXCITE_MANAGEMENT_URL has other credentials than RabbitMQ")
        token = services["model"]["environment"]["EXCITE_TOKEN"]
        digest = hashlib.sha256(token.encode()).hexdigest()
        if f":admin:{digest}" not in (ROOT / "docker/tokens.development").read_text():
            raise Failed("docker/tokens.development: it lacks the hash of EXCITE_TOKEN; write "
                         f"`development:admin:{digest}`")
        for secret in (user[1], keys[1], token,
                       services["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"]):
            if "development-only" not in secret:
                raise Failed(f"`{secret}` does not say that it is for development only")
        return "they agree, and each says that it is for development only"

    def files(self) -> str:
        """What is mounted from this repository has to be there."""
        mounted = {Path(volume["source"]): name for name, service in self.services().items()
                   for volume in service.get("volumes", []) if volume["type"] == "bind"}
        chart = ROOT / "charts/excite"
        missing = [path for path in mounted if not path.exists()]
        for path in missing:
            if chart.exists() or not path.is_relative_to(chart):
                raise Failed(f"{mounted[path]}: volumes: {path} does not exist; mend the path")
        if missing:
            raise Skipped("there is no charts/excite in this checkout, whose rules and dashboards "
                          "are mounted")
        return f"{len(mounted)} mounts"

    def prometheus(self) -> str:
        """promtool reads the configuration, with the chart's rules if they are there."""
        if shutil.which("promtool") is None:
            raise Skipped("no promtool; install Debian's package `prometheus`")
        text = (ROOT / "docker/prometheus.yaml").read_text()
        rules = ROOT / "charts/excite/files/rules.yaml"
        inside = "[/etc/prometheus/rules.yaml]"
        if inside not in text:
            raise Failed(f"docker/prometheus.yaml: rule_files should be {inside}, as mounted")
        CACHE.mkdir(parents=True, exist_ok=True)
        copy = CACHE / "prometheus.yaml"
        copy.write_text(text.replace(inside, f"[{rules}]" if rules.is_file() else "[]"))
        run(["promtool", "check", "config", copy])
        return "with the chart's rules" if rules.is_file() else "without rules: no chart"
