"""What is done to the cluster, and what must be seen then."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import commands
import shorten
from cluster import GUIDED, MODEL, Cluster, jobs
from processes import Failed, get, until
from watch import Watch

LIVE = Path(__file__).resolve().parents[1] / "monitoring/live.py"
SERVERS = ("epmd", "rabbitmq", "redis", "s3")
DISPATCHERS = ("dispatcher-1", "dispatcher-2")
WORKERS = ("worker-1", "worker-2")
# How long alerts may take beside their own times: scrapes, evaluations, Alertmanager, a busy machine.
PATIENCE = 60
END = 180
# Seconds in which programs notice that a server is away, or is back.
NOTICE = 60
Step = Callable[[], str | None]


class Trouble:
    """A server that is taken away."""

    def __init__(self, server: str, alert: str, ready: dict[str, int]) -> None:
        self.server = server
        self.alert = alert
        # What `/readyz` says meanwhile, by the programs' kinds: docs/operations.md.
        self.ready = ready


TROUBLES = (
    Trouble("rabbitmq", "ExciteBrokerDown", {"worker": 503, "dispatcher": 200}),
    Trouble("redis", "ExciteRedisDown", {"worker": 200, "dispatcher": 200}),
    Trouble("s3", "ExciteStoreErrors", {"worker": 200, "dispatcher": 200}),
)


def all_steps(cluster: Cluster, watch: Watch, load_seconds: int) -> Iterator[tuple[str, Step]]:
    """The steps in their order, each with its title."""
    yield "RabbitMQ, Redis and the S3 server answer", lambda: cluster.start(*SERVERS)
    yield "the topology is applied, and checked", lambda: topology(cluster)
    yield "two dispatchers are ready, and models are pushed", lambda: dispatchers(cluster)
    yield "two workers are ready", lambda: cluster.start(*WORKERS)
    yield f"Prometheus and Alertmanager watch, {shorten.FACTOR} times as fast", watch.start
    since = time.monotonic()
    yield "under load there is data for each panel and rule, and all batches end", lambda: load(cluster, watch, load_seconds)
    yield "no alert fired", lambda: nothing_fired(watch, since)
    yield "jobs that die are told of, and replayed", lambda: dead(cluster, watch)
    yield "no worker while jobs wait is told of, and ends", lambda: no_workers(cluster, watch)
    for trouble in TROUBLES:
        yield f"{trouble.server} killed: probes, {trouble.alert}, and its end", lambda: away(cluster, watch, trouble)
    yield "in the end nothing fires and nothing is left in the queues", lambda: left(cluster, watch)
    yield "commands of docs/runbooks.md run", lambda: commands.run_all(cluster)


def topology(cluster: Cluster) -> None:
    """Queues and policies."""
    cluster.must("excite-dispatcher", "topology", "apply")
    cluster.must("excite-dispatcher", "topology", "check", "--json")


def dispatchers(cluster: Cluster) -> None:
    """The dispatchers, and a model for each class: `gone` will be taken away."""
    cluster.start(*DISPATCHERS)
    cluster.must("excite", "model", "push", "emoji")
    for name in (MODEL, "gone"):
        cluster.must("excite", "model", "push", "emoji", "--name", name, "--class", GUIDED)


def load(cluster: Cluster, watch: Watch, seconds: int) -> str:
    """Batches all the time, of both ways and both lanes, and lines that are wrong; meanwhile live.py asks."""
    wrong = cluster.folder / "wrong.jsonl"
    wrong.write_text('{"prompt": "a cat", "steps": 0}\n{"prompt": ""}\n')
    right = cluster.folder / "right.jsonl"
    right.write_text('{"prompt": "a dog and a bear", "seeds": "0..20", "steps": 8}\n')
    done = cluster.run("excite", "submit", str(wrong))
    if done.returncode != 2:
        raise Failed(f"`excite submit` of wrong lines ended with {done.returncode}, not 2: {done.stdout + done.stderr}")
    batches: list[str] = []
    faults: list[BaseException] = []
    stop = threading.Event()

    def submit() -> None:
        turn = 0
        try:
            while not stop.is_set():
                at = DISPATCHERS[turn % 2]
                batches.append(cluster.submit(jobs(12, 10), f"lane={('bulk', 'express')[turn // 2 % 2]}", at))
                if turn % 8 == 0:
                    batches.append(cluster.submit(jobs(2, 6), f"model={MODEL}"))
                    # The same seeds each time: results are copied.
                    batches.append(cluster.must("excite", "submit", str(right)).split()[-1])
                for name in DISPATCHERS:
                    for pool in ("default", GUIDED):
                        get(f"{cluster.url(name)}/v1/scale?pool={pool}")
                turn += 1
                stop.wait(1.5)
        except (Failed, OSError) as error:
            faults.append(error)
            stop.set()

    thread = threading.Thread(target=submit)
    thread.start()
    try:
        stop.wait(seconds)
        deadline = time.monotonic() + PATIENCE
        while True:
            asked = subprocess.run([sys.executable, LIVE, watch.prometheus, "--window", shorten.shorter("15m")],
                                   capture_output=True, text=True, check=False, timeout=120)
            if asked.returncode == 0 or time.monotonic() > deadline or faults:
                break
            time.sleep(3)
    finally:
        stop.set()
        thread.join(timeout=120)
    if faults:
        raise Failed(str(faults[0]))
    if asked.returncode != 0:
        raise Failed(f"live.py: {asked.stdout}{asked.stderr}")
    made = ended(cluster, batches)
    return f"{len(batches)} batches, {made} images; {asked.stdout.splitlines()[-1]}"


def ended(cluster: Cluster, batches: list[str]) -> int:
    """Waits for batches whose jobs must all succeed; how many jobs."""
    made = 0
    for batch in batches:
        states = {state: count for state, count in cluster.finished(batch, END).items() if count}
        if set(states) != {"succeeded"}:
            raise Failed(f"batch {batch} ended with {states}, not with all succeeded; `excite dead show {batch}`")
        made += states["succeeded"]
    return made


def nothing_fired(watch: Watch, since: float) -> str:
    """Nobody was told of anything, and nothing fires for a while after the load."""
    deadline = time.monotonic() + shorten.seconds("15m") / shorten.FACTOR
    while time.monotonic() < deadline:
        if active := watch.active():
            raise Failed(f"{', '.join(sorted(active))} fires, and all is well")
        time.sleep(1)
    if told := watch.others(since, ()):
        raise Failed(f"somebody was told of {', '.join(told)}, and all was well")
    return f"{time.monotonic() - since:.0f} s"


def dead(cluster: Cluster, watch: Watch) -> str:
    """A model goes while its jobs wait: they die, and live when it is back."""
    model, aside = cluster.store / "models/gone", cluster.folder / "gone"
    since = time.monotonic()
    # The one that computes is away, so that the jobs wait.
    cluster.processes["worker-2"].stop()
    batch = cluster.submit(jobs(3, 6), "model=gone")
    shutil.move(model, aside)
    cluster.start("worker-2")
    states = cluster.finished(batch, END)
    if states.get("dead") != 3:
        raise Failed(f"batch {batch} of a model that is gone ended with {states}, not with three dead")
    fired = watch.fires("ExciteDeadJobs", since, PATIENCE)
    listed = cluster.must("excite", "dead", "list") + cluster.must("excite", "dead", "show", batch)
    if batch not in listed or "invalid" not in listed:
        raise Failed(f"`excite dead` does not tell of batch {batch}: {listed[-500:]}")
    shutil.move(aside, model)
    cluster.must("excite", "dead", "replay", batch, "--reason", "invalid")
    until("the replayed jobs are made", END, lambda: cluster.finished(batch, END).get("succeeded") == 3)
    over = watch.resolves("ExciteDeadJobs", since, PATIENCE + shorten.seconds("30m") / shorten.FACTOR)
    told_only(watch, since, {"ExciteDeadJobs"})
    return f"told after {fired:.0f} s, over after {over:.0f} s"


def no_workers(cluster: Cluster, watch: Watch) -> str:
    """All workers stop while jobs wait; what was begun is handed over, and nobody is lost."""
    watch.calm(PATIENCE)
    since = time.monotonic()
    batches = [cluster.submit(jobs(150, 50), "lane=bulk"), cluster.submit(jobs(4, 10), f"model={MODEL}")]
    until("jobs run", NOTICE, lambda: cluster.metric("worker-1", "excite_jobs_held") > 0)
    for name in WORKERS:
        cluster.processes[name].stop()
    fired = watch.fires("ExciteNoWorkers", since, PATIENCE + shorten.seconds("15m") / shorten.FACTOR)
    # It stalls as well, and that follows: Prometheus has it, nobody is told.
    until("ExciteQueueStalled fires in Prometheus", PATIENCE, lambda: "ExciteQueueStalled" in watch.active())
    back = time.monotonic()
    cluster.start(*WORKERS)
    over = watch.resolves("ExciteNoWorkers", back, PATIENCE)
    made = ended(cluster, batches)
    watch.calm(PATIENCE)
    told_only(watch, since, {"ExciteNoWorkers", "ExcitePoolEmpty"})
    return f"told after {fired:.0f} s, over {over:.0f} s after workers came back; {made} images"


def told_only(watch: Watch, since: float, expected: set[str]) -> None:
    """Fails if somebody was told of something else: of what follows from a cause nobody should be."""
    if others := watch.others(since, expected):
        raise Failed(f"somebody was told of {', '.join(others)} beside {', '.join(sorted(expected))}")


def probes(cluster: Cluster, ready: dict[str, int]) -> None:
    """Fails if a probe says something else."""
    for name in DISPATCHERS + WORKERS:
        for path, wanted in (("healthz", 200), ("readyz", ready[name.split("-")[0]])):
            status, text = get(f"{cluster.url(name)}/{path}")
            if status != wanted:
                raise ValueError(f"/{path} of {name} is {status} ({text.strip()[:200]}), not {wanted}")


def away(cluster: Cluster, watch: Watch, trouble: Trouble) -> str:
    """A server is killed under load, and comes back."""
    watch.calm(PATIENCE)
    since = time.monotonic()
    batches = [cluster.submit(jobs(300, 20), "lane=bulk"), cluster.submit(jobs(6, 20), f"model={MODEL}")]
    until("jobs run", NOTICE, lambda: cluster.metric("worker-1", "excite_jobs_held") > 0)
    cluster.processes[trouble.server].kill()

    def as_written() -> bool:
        probes(cluster, trouble.ready)
        return True

    until("probes say what docs/operations.md says", NOTICE, as_written)
    if trouble.server != "s3":
        # Only the store is needed for that.
        batches.append(cluster.submit(jobs(20, 10)))
    fired = watch.fires(trouble.alert, since, PATIENCE + shorten.seconds("15m") / shorten.FACTOR)
    as_written()
    back = time.monotonic()
    cluster.start(trouble.server)
    over = watch.resolves(trouble.alert, back, PATIENCE + shorten.seconds("15m") / shorten.FACTOR)
    until("all are ready", NOTICE, lambda: probes(cluster, {"worker": 200, "dispatcher": 200}) is None)
    batches.append(cluster.submit(jobs(20, 10), at="dispatcher-2"))
    made = ended(cluster, batches)
    watch.calm(PATIENCE)
    told_only(watch, since, {trouble.alert})
    return f"told after {fired:.0f} s, over {over:.0f} s after it came back; {made} images"


def left(cluster: Cluster, watch: Watch) -> str:
    """Queues are empty, one leads, nothing fires."""
    watch.calm(PATIENCE)

    def empty() -> bool:
        rows = cluster.must("rabbitmqctl", "-q", "list_queues", "--no-table-headers", "name", "messages").splitlines()
        full = [row for row in rows if row.split()[-1] != "0"]
        # A canary may be under way.
        if len(rows) < 3 or full:
            raise ValueError(f"{len(rows)} queues, not empty: {full}")
        return True

    until("the queues are empty", NOTICE, empty)
    leaders = sum(cluster.metric(name, "excite_leader") for name in DISPATCHERS)
    if leaders != 1:
        raise Failed(f"{leaders:.0f} dispatchers lead")
    return f"{len(watch.receiver.told)} messages of Alertmanager in all"
