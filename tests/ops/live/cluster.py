"""A private cluster: RabbitMQ, Redis, an S3 server, two dispatchers and two workers, each a process of its own."""

from __future__ import annotations

import base64
import json
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from processes import Failed, Process, connects, free_port, get, get_json, until

# Those in /usr/sbin want root and always take the same folders.
RABBIT = Path("/usr/lib/rabbitmq/bin")
NODE = "excite-live@localhost"
BUCKET = "excite"
KEYS = ("excite", "excite-secret")
# Class and model of the worker that computes; the other makes single pixels, so that load costs little.
GUIDED = "guided"
MODEL = "emoji-guided"
# Of the one who makes single pixels: a step of its micro-batches, and its jobs at a time.
STEP_MILLISECONDS = 20
SLOTS = 8
CANARY_SECONDS = 5


class Cluster:
    """All processes by name, and where they are."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.folder = folder
        self.binaries = binaries
        self.processes: dict[str, Process] = {}
        self.ports: dict[str, int] = {}
        taken: set[int] = set()
        for name in ("amqp", "management", "peers", "names", "redis", "s3", "prometheus", "alertmanager",
                     "dispatcher-1", "dispatcher-2", "worker-1", "worker-2"):
            self.ports[name] = free_port(taken)
        self.broker = f"amqp://guest:guest@127.0.0.1:{self.ports['amqp']}/%2f"
        self.redis = f"redis://127.0.0.1:{self.ports['redis']}/0"
        self.env = {
            "EXCITE_BROKER__URL": self.broker,
            "EXCITE_PROGRESS__URL": self.redis,
            "EXCITE_STORE__URL": f"s3://{BUCKET}",
            "EXCITE_STORE__ENDPOINT": f"http://127.0.0.1:{self.ports['s3']}",
            "EXCITE_STORE__REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": KEYS[0],
            "AWS_SECRET_ACCESS_KEY": KEYS[1],
            "EXCITE_MANAGEMENT_URL": f"http://guest:guest@127.0.0.1:{self.ports['management']}",
            "EXCITE_SERVER": self.url("dispatcher-1"),
            "EXCITE_DISPATCHER__CLASSES": json.dumps(["default", GUIDED]),
            "EXCITE_DISPATCHER__CANARY_SECONDS": str(CANARY_SECONDS),
            "EXCITE_WORKER__CACHE_DIR": str(folder / "models"),
        }
        self.rabbit_env = self._rabbit_env()
        self._servers()
        self._programs()

    def url(self, name: str) -> str:
        """Where a process listens."""
        return f"http://127.0.0.1:{self.ports[name]}"

    @property
    def store(self) -> Path:
        """The bucket, which is a folder of objects."""
        return self.folder / "s3" / BUCKET

    def add(self, name: str, argv: list[str | Path], env: dict[str, str]) -> Process:
        """Makes a process known, so that it ends with the others."""
        self.processes[name] = Process(name, argv, env, self.folder / f"{name}.log")
        return self.processes[name]

    def _rabbit_env(self) -> dict[str, str]:
        home = self.folder / "rabbit"
        for sub in ("home", "mnesia", "log"):
            (home / sub).mkdir(parents=True)
        (home / "enabled_plugins").write_text("[rabbitmq_management].\n")
        (home / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.ports['amqp']}\n"
            f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self.ports['management']}\n"
            "log.console = true\nlog.file = false\nlog.console.level = info\n"
            "vm_memory_high_watermark.absolute = 1GB\ndisk_free_limit.absolute = 50MB\n")
        return {
            "HOME": str(home / "home"),
            "ERL_EPMD_PORT": str(self.ports["names"]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # The script becomes the node instead of waiting for it.
            "RUNNING_UNDER_SYSTEMD": "yes",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_NODENAME": NODE,
            "RABBITMQ_DIST_PORT": str(self.ports["peers"]),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_SERVER_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def _servers(self) -> None:
        self.store.mkdir(parents=True)
        (self.folder / "redis").mkdir()
        self.add("epmd", ["epmd", "-port", str(self.ports["names"]), "-address", "127.0.0.1"], self.rabbit_env)
        self.add("rabbitmq", [RABBIT / "rabbitmq-server"], self.rabbit_env)
        self.add("redis", ["redis-server", "--bind", "127.0.0.1", "--port", str(self.ports["redis"]), "--save", "",
                           "--appendonly", "no", "--maxmemory-policy", "noeviction",
                           "--dir", self.folder / "redis"], {})
        self.add("s3", [self.binaries / "excite-s3", "--port", str(self.ports["s3"]), "--access-key", KEYS[0],
                        "--secret-key", KEYS[1], "--root", self.folder / "s3"], {})

    def _programs(self) -> None:
        for number in (1, 2):
            name = f"dispatcher-{number}"
            self.add(name, [self.binaries / "excite-dispatcher", "--name", name, "--listen",
                            f"127.0.0.1:{self.ports[name]}"], self.env)
        empty = ["--pipeline", "empty", "--step-milliseconds", str(STEP_MILLISECONDS), "--slots", str(SLOTS),
                 "--batch-size", str(SLOTS)]
        for name, more in (("worker-1", empty), ("worker-2", ["--class", GUIDED, "--pool", GUIDED, "--slots", "2"])):
            self.add(name, [self.binaries / "excite-worker", "--name", name, "--listen",
                            f"127.0.0.1:{self.ports[name]}", *more], self.env)

    def start(self, *names: str) -> None:
        """Starts processes and waits until each can be used."""
        for name in names:
            self.processes[name].start()
        for name in names:
            self.processes[name].up(120, lambda: self.answers(name))

    def answers(self, name: str) -> bool:
        """Whether a server answers, or a program is ready."""
        if name == "rabbitmq":
            # The management API is up last.
            return connects(self.ports["amqp"]) and self._rabbit_overview()
        ports = {"epmd": "names", "redis": "redis", "s3": "s3"}
        if name in ports:
            return connects(self.ports[ports[name]])
        return get(f"{self.url(name)}/readyz")[0] == 200

    def _rabbit_overview(self) -> bool:
        request = urllib.request.Request(f"{self.url('management')}/api/overview")
        request.add_header("Authorization", "Basic " + base64.b64encode(b"guest:guest").decode())
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status == 200

    def end(self) -> None:
        """Ends everything, the last first."""
        for process in reversed(self.processes.values()):
            process.kill()

    def run(self, *words: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Runs a program of Excite, RabbitMQ or Redis with what it needs to find the cluster."""
        places = {path.name: str(path) for path in (*self.binaries.glob("excite*"), *RABBIT.iterdir())}
        path = self.processes["redis"].env["PATH"]
        try:
            return subprocess.run(
                [places.get(words[0], words[0]), *words[1:]], capture_output=True, text=True, check=False,
                timeout=seconds, cwd=self.folder, stdin=subprocess.DEVNULL,
                env={"PATH": path, "LANG": "C.UTF-8", **self.rabbit_env, **self.env})
        except subprocess.TimeoutExpired:
            raise Failed(f"`{' '.join(words)}` does not end within {seconds:.0f} s") from None

    def must(self, *words: str) -> str:
        """What a program printed; fails with what it said if it does not end well."""
        done = self.run(*words)
        if done.returncode != 0:
            raise Failed(f"`{' '.join(words)}` ended with {done.returncode}: {(done.stdout + done.stderr)[-800:]}")
        return done.stdout

    def submit(self, lines: list[dict[str, Any]], query: str = "", at: str = "dispatcher-1") -> str:
        """Submits jobs over HTTP; the batch's id."""
        body = "".join(json.dumps(line) + "\n" for line in lines).encode()
        request = urllib.request.Request(f"{self.url(at)}/v1/batches?{query}", data=body, method="POST")
        request.add_header("Content-Type", "application/x-ndjson")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)["id"]
        except urllib.error.HTTPError as error:
            raise Failed(f"a batch is refused: {error.code}: {error.read().decode(errors='replace')[:500]}") from None

    def finished(self, batch: str, seconds: float) -> dict[str, int]:
        """Waits for the end of a batch; its jobs by state. Fails if a job is missing."""
        def look() -> dict[str, Any] | None:
            view = get_json(f"{self.url('dispatcher-1')}/v1/batches/{batch}")
            if view["state"] == "finished":
                return view
            raise ValueError(json.dumps({"state": view["state"], "tally": view.get("tally")})[:400])

        view = until(f"the end of batch {batch}", seconds, look)
        return view["tally"]["states"]

    def metric(self, name: str, metric: str) -> float:
        """The sum of a metric over its labels, as a process says it."""
        rows = [row for row in get(f"{self.url(name)}/metrics")[1].splitlines()
                if row.split("{")[0].split(" ")[0] == metric]
        return sum(float(row.rsplit(" ", 1)[1]) for row in rows)


def jobs(count: int, steps: int, prompt: str = "a cat and a frog", **more: Any) -> list[dict[str, Any]]:
    """A line of so many new jobs: seeds that nobody had, for what was made already is only copied."""
    first = time.monotonic_ns() // 1000 % 2**31
    return [{"prompt": prompt, "steps": steps, "seeds": f"{first}..{first + count}", **more}]
