"""A small cluster of the images on this machine: servers as tests start them, a dispatcher, a
worker and the command line in containers. Makes an image, then stops everything."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from compose import Compose
from containers import Container, crun
from images import Images
from report import Failed, Skipped
from tools import CACHE, ROOT

# What Kubernetes and compose.yaml give less ten seconds.
STOP_SECONDS = 20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url: str) -> tuple[int, str]:
    """Status and body of an answer; 0 if there is none."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except (urllib.error.URLError, OSError):
        return 0, ""


class Stack:
    """The cluster, as far as it was started."""

    def __init__(self, images: Images, compose: Compose, binaries: Path) -> None:
        self.images = images
        self.compose = compose
        self.binaries = binaries
        self.folder = CACHE / "images/stack"
        self.servers: subprocess.Popen | None = None
        self.env: dict[str, str] = {}
        self.management = ""
        self.containers: dict[str, Container] = {}
        self.http, self.probes = free_port(), free_port()

    def start_servers(self) -> str:
        """RabbitMQ, Redis and S3, by the project's own program."""
        places = (self.binaries, ROOT / "target/debug", ROOT / "target/release")
        found = [place for place in places if (place / "excite-servers").is_file()
                 and (place / "excite-s3").is_file()]
        if not found:
            raise Skipped("excite-servers and excite-s3 are not built; run `cargo build -p "
                          "excite-tests --bins`")
        for program in ("/usr/lib/rabbitmq/bin/rabbitmq-server", shutil.which("redis-server")):
            if not program or not Path(program).is_file():
                raise Skipped("RabbitMQ or Redis is not installed; `cargo xtask test` installs them")
        folder = self.folder / "servers"
        shutil.rmtree(self.folder, ignore_errors=True)
        folder.mkdir(parents=True)
        log = folder / "log"
        with open(log, "w", encoding="utf-8") as out:
            self.servers = subprocess.Popen([found[0] / "excite-servers", "--dir", folder],
                                            stdin=subprocess.DEVNULL, stdout=out, stderr=out)

        def ready() -> bool:
            return "ready; " in log.read_text()

        self.until(120, "the servers", ready, lambda: log.read_text()[-800:])
        for line in (folder / "env").read_text().splitlines():
            key, value = line.removeprefix("export ").split("=", 1)
            self.env[key] = value
        pages = re.search(r"pages are at (http://\S+)", log.read_text())
        self.management = pages[1].replace("://", "://guest:guest@") if pages else ""
        return "RabbitMQ, Redis, S3"

    @staticmethod
    def until(seconds: float, what: str, there: Callable[[], bool],
              why: Callable[[], str]) -> None:
        """Waits for something; fails with what is known if it does not come."""
        end = time.monotonic() + seconds
        while not there():
            if time.monotonic() > end:
                raise Failed(f"{what} did not come within {seconds:.0f} s:\n{why()}")
            time.sleep(0.1)

    def run(self, name: str, target: str, args: list[str], env: dict[str, str],
            binds: dict[Path, str] | None = None) -> Container:
        """Starts a container of an image."""
        root = self.images.mount(self.images.name(target))
        container = Container(name, self.folder, root, self.images.config(target), args,
                              {**self.env, **env}, binds or {})
        self.containers[name] = container
        return container

    def finish(self, name: str, target: str, args: list[str], env: dict[str, str],
               binds: dict[Path, str] | None = None, want: int = 0) -> str:
        """Runs a container to its end; what it printed."""
        container = self.run(name, target, args, env, binds)
        status = container.wait(180)
        if status != want:
            raise Failed(f"{name} ended with {status}, not with {want}:\n{container.last_lines()}")
        return container.log.read_text()

    def refuses(self) -> str:
        """Without tokens nobody is asked who they are, so the image as it is must not serve."""
        said = self.finish("refused", "dispatcher", [], {}, want=2)
        if "dispatcher.tokens_file" not in said:
            raise Failed(f"the dispatcher refused, but not for want of tokens:\n{said[-400:]}")
        return "exit status 2, and it names dispatcher.tokens_file"

    def topology(self) -> str:
        """The one-shot service of compose.yaml."""
        service = self.compose.service("topology")
        tokens = service["environment"]["EXCITE_DISPATCHER__TOKENS_FILE"]
        env = {"EXCITE_MANAGEMENT_URL": self.management, "EXCITE_DISPATCHER__TOKENS_FILE": tokens}
        self.finish("topology", "dispatcher", service["command"], env)
        return "queues and policies made"

    def dispatcher(self) -> str:
        """Started with the file of tokens, and asked as compose.yaml asks it."""
        service = self.compose.service("dispatcher")
        tokens = service["environment"]["EXCITE_DISPATCHER__TOKENS_FILE"]
        env = {"EXCITE_DISPATCHER__LISTEN": f"127.0.0.1:{self.http}",
               "EXCITE_DISPATCHER__TOKENS_FILE": tokens}
        binds = {ROOT / "docker/tokens.development": tokens}
        container = self.run("dispatcher", "dispatcher", [], env, binds)
        url = f"http://127.0.0.1:{self.http}"
        self.until(60, "the dispatcher", lambda: get(f"{url}/readyz")[0] == 200,
                   container.last_lines)
        test = [word.replace("8080", str(self.http)).replace("$$", "$")
                for word in service["healthcheck"]["test"][1:]]
        if self.fails(container, test):
            raise Failed("dispatcher: healthcheck: it fails, though the dispatcher is ready")
        closed = str(free_port())
        wrong = [word.replace(str(self.http), closed) for word in test]
        if not self.fails(container, wrong):
            raise Failed("dispatcher: healthcheck: it is content with a port where nobody listens")
        status = get(f"{url}/v1/batches")[0]
        if status != 401:
            raise Failed(f"GET /v1/batches without a token gives {status}, not 401")
        return f"ready; health check works; {container.confinement()}"

    @staticmethod
    def fails(container: Container, words: list[str]) -> bool:
        """Whether a command in a container ends with another status than 0."""
        try:
            crun(container.state, "exec", container.name, *words)
        except Failed:
            return True
        return False

    def steps(self) -> int:
        """Denoising steps that the worker has made."""
        body = get(f"http://127.0.0.1:{self.probes}/metrics")[1]
        made = re.search(r"^excite_steps_total (\d+)", body, re.MULTILINE)
        return int(made[1]) if made else 0

    def worker(self) -> str:
        """Started with the image's settings, on a port of its own."""
        env = {"EXCITE_WORKER__LISTEN": f"127.0.0.1:{self.probes}"}
        container = self.run("worker", "worker", [], env)
        url = f"http://127.0.0.1:{self.probes}/readyz"
        self.until(120, "the worker", lambda: get(url)[0] == 200, container.last_lines)
        return f"ready; {container.confinement()}"

    def client(self) -> dict[str, str]:
        """How compose.yaml tells `excite` where and who."""
        token = self.compose.service("model")["environment"]["EXCITE_TOKEN"]
        return {"EXCITE_SERVER": f"http://127.0.0.1:{self.http}", "EXCITE_TOKEN": token}

    def makes_an_image(self) -> str:
        """Pushes the model as compose.yaml does, and has one image made."""
        model = self.compose.service("model")["command"]
        self.finish("model", "cli", model, self.client())
        said = self.finish("model-again", "cli", model, self.client())
        if "there already" not in said:
            raise Failed(f"a second push of the model does not say that it is there:\n{said}")
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        (work / "prompts.jsonl").write_text('{"prompt": "a cat and a frog", "steps": 4}\n')
        self.finish("submit", "cli", ["submit", "prompts.jsonl", "--watch"], self.client(),
                    {work: "/work"})
        if not list((self.folder / "servers").rglob("images/00000000.png*")):
            raise Failed("the batch is done, but the store has no image of it")
        return "the model pushed twice, one batch done, its image in the store"

    def stop_worker(self) -> str:
        """While it makes images: it must hand them over and end in time."""
        work = self.folder / "work"
        (work / "long.jsonl").write_text('{"prompt": "a lion and a elephant", "seeds": "0..64"}\n')
        before = self.steps()
        self.finish("submit-long", "cli", ["submit", "long.jsonl"], self.client(), {work: "/work"})
        worker = self.containers["worker"]
        self.until(60, "a step of a job", lambda: self.steps() > before, worker.last_lines)
        took = worker.stop("TERM", STOP_SECONDS)
        handed_over = worker.log.read_text().count('"preempted"')
        if not handed_over:
            raise Failed(f"the worker ended without handing its jobs over:\n{worker.last_lines()}")
        return f"status 0 after SIGTERM in {took:.1f} s, {handed_over} running jobs handed over"

    def stop_dispatcher(self) -> str:
        """Nothing waits for it."""
        took = self.containers["dispatcher"].stop("TERM", STOP_SECONDS)
        return f"status 0 after SIGTERM in {took:.1f} s"

    def stop_cli(self) -> str:
        """`docker stop` sends the image's own signal."""
        port = free_port()
        cli = self.run("serve", "cli", ["serve", "--listen", f"127.0.0.1:{port}"], {})
        self.until(60, "excite serve", lambda: get(f"http://127.0.0.1:{port}/readyz")[0] == 200,
                   cli.last_lines)
        name = self.images.config("cli")["StopSignal"]
        if not cli.listens(signal.Signals[name]):
            raise Failed(f"`excite` does not listen to {name}, the image's StopSignal")
        return f"status 0 after {name} in {cli.stop(name.removeprefix('SIG'), STOP_SECONDS):.1f} s"

    def close(self) -> None:
        """Ends all that was started."""
        for container in self.containers.values():
            container.close()
        if self.servers:
            self.servers.send_signal(signal.SIGTERM)
            try:
                self.servers.wait(90)
            except subprocess.TimeoutExpired:
                self.servers.kill()
                self.servers.wait()
