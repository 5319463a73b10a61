"""What the dashboards show: a table of panels. `dashboards.py` makes Grafana's JSON of it.

Expressions are written without `namespace`; every selector gets the dashboard's. `{model}` and `{pool}`
stand for the choice of the dashboard's variables, `[RATE]` for a range that fits the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

# Gauges of a dispatcher that does not lead any more are old.
LEADS = " and on (namespace, job, instance) (excite_leader == 1)"
WORKER = " and on (namespace, job, instance) excite_selftest_ok"
PRICED = " * on (pool) group_left () excite:worker_price_per_hour"

GREEN, YELLOW, RED = "green", "yellow", "red"


@dataclass(frozen=True)
class Panel:
    """One panel: `targets` are pairs of an expression and its legend."""

    title: str
    description: str
    unit: str
    targets: tuple[tuple[str, str], ...]
    # stat, timeseries, heatmap or table
    kind: str = "timeseries"
    # Of 24.
    width: int = 8
    # Values from which a colour holds; the first one holds from the beginning.
    steps: tuple[tuple[float | None, str], ...] = ((None, GREEN),)
    stack: bool = False


@dataclass(frozen=True)
class Row:
    """A heading with its panels."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    """A dashboard: `variables` are those beside data source and namespace."""

    uid: str
    title: str
    description: str
    variables: tuple[str, ...]
    # Whether its series are those of workers, which have a pool where the chart runs them.
    of_workers: bool
    rows: tuple[Row, ...]


def stat(title: str, description: str, unit: str, expr: str, *steps: tuple[float | None, str]) -> Panel:
    """A number, a sixth of the width."""
    return Panel(title, description, unit, ((expr, ""),), "stat", 4, steps or ((None, GREEN),))


def graph(title: str, description: str, unit: str, *targets: tuple[str, str], width: int = 8,
          stack: bool = False, steps: tuple[tuple[float | None, str], ...] = ((None, GREEN),)) -> Panel:
    """Lines over time."""
    return Panel(title, description, unit, targets, "timeseries", width, steps, stack)


def quantiles(metric: str, by: str, matchers: str = "") -> tuple[tuple[str, str], ...]:
    """The median and the 95th percentile of a histogram, by a label."""
    group = f"{by}, le" if by else "le"
    name = f"{{{{{by}}}}} " if by else ""
    return tuple(
        (f"histogram_quantile({q}, sum by ({group}) (rate({metric}_bucket{matchers}[RATE])))", f"{name}{word}")
        for q, word in ((0.5, "p50"), (0.95, "p95"))
    )


OVERVIEW = Dashboard(
    "excite-overview", "Excite / Overview", "Whether images come, what waits, and for how long.", ("model", "pool"), False, (
        Row("Now", (
            stat("Images a second", "Images that workers make.", "short", "sum(namespace:excite_images:rate5m)"),
            stat("Open jobs", "Jobs of unfinished batches, paused ones too, that are not concluded.", "short",
                 'sum(namespace_state:excite_queue_jobs:leader{state!="ready"})'),
            stat("Time left", "Until all that is open is done with the workers that are ready. Minus one second: not known.",
                 "s", f"max(excite_drain_seconds{LEADS})", (None, GREEN), (14400, YELLOW)),
            stat("Oldest batch", "Age of the oldest unfinished batch that is not paused.", "s",
                 "max(namespace:excite_queue_oldest_seconds:leader)", (None, GREEN), (43200, YELLOW), (86400, RED)),
            stat("Workers ready", "Workers that passed their self-test and are connected to the broker.", "short",
                 "sum(namespace:excite_workers:ready)"),
            stat("Failed tries", "Share of the tries of the last 15 minutes that failed.", "percentunit",
                 "max(namespace:excite_failures:ratio_rate15m)", (None, GREEN), (0.02, YELLOW), (0.05, RED)),
            stat("Canary", "Time since a canary succeeded; it grows while no worker is ready. 0 where there are no canaries.",
                 "s", "max(namespace:excite_canary_age_seconds:leader)", (None, GREEN), (900, YELLOW)),
            stat("Dead jobs", "Dead jobs of unfinished batches. `excite dead list` shows all.", "short",
                 f"max(excite_dead_jobs{LEADS})", (None, GREEN), (1, YELLOW)),
            stat("Leaders", "Dispatchers that lead: one.", "short", "sum(excite_leader)",
                 (None, RED), (1, GREEN), (2, RED)),
            stat("Unfinished batches", "Batches with open jobs, paused or not.", "short",
                 "sum(namespace_state:excite_batches:leader)"),
            stat("Compute seconds an image", "Over the last hour, loading left out. Times the price of a second: the cost.",
                 "s", "max(namespace:excite_gpu_seconds_per_image:rate1h)"),
            stat("Steps in vain", "Share of the steps of the last hour whose result is lost.", "percentunit",
                 "max(namespace:excite_waste:ratio_rate1h)", (None, GREEN), (0.05, YELLOW), (0.1, RED)),
        )),
        Row("Throughput", (
            graph("Images", "Images made in all, a second.", "ops",
                  ("sum(rate(excite_images_total[RATE]))", "images"), width=6),
            graph("Outcomes", "What workers reported, a second, by kind.", "ops",
                  ('sum by (kind) (namespace_kind:excite_outcomes:rate5m{kind!="started"})', "{{kind}}"), width=6, stack=True),
            graph("Jobs by model", "Jobs that workers concluded, a second, by model and outcome.", "ops",
                  ("sum by (model, outcome) (rate(excite_jobs_total{model}[RATE]))", "{{model}} {{outcome}}"), width=6, stack=True),
            graph("Job duration", "From the delivery of a job to its acknowledgement, by model.", "s",
                  ("max by (model) (namespace_model:excite_job_duration_seconds:p50{model})", "{{model}} p50"),
                  ("max by (model) (namespace_model:excite_job_duration_seconds:p95{model})", "{{model}} p95"), width=6),
        )),
        Row("What waits", (
            graph("Jobs by state", "waiting: not in the broker yet. queued: in the broker. running: at a worker. "
                  "retrying: until the next try.", "short",
                  ("sum by (state) (namespace_state:excite_queue_jobs:leader{state!=\"ready\"})", "{{state}}"), width=6, stack=True),
            graph("Backlog by model", "Estimated compute seconds of all that is open.", "s",
                  (f"max by (model) (excite_backlog_gpu_seconds{{model}}{LEADS})", "{{model}}"), width=6, stack=True),
            graph("Time left, oldest batch", "Until all is done with the workers that are ready; age of the oldest batch.", "s",
                  (f"max(excite_drain_seconds{LEADS})", "time left"),
                  ("max(namespace:excite_queue_oldest_seconds:leader)", "oldest batch"), width=6),
            graph("Wait in the queue", "From the first publication of a job to its delivery to a worker, by lane. What is not in "
                  "the broker yet waits before that.", "s",
                  ("max by (lane) (namespace_lane:excite_queue_wait_seconds:p50)", "{{lane}} p50"),
                  ("max by (lane) (namespace_lane:excite_queue_wait_seconds:p95)", "{{lane}} p95"), width=6),
            graph("Batches", "Unfinished batches.", "short",
                  ("sum by (state) (namespace_state:excite_batches:leader)", "{{state}}"), stack=True),
            graph("Workers", "Workers that are ready, beside those that each pool should have as it was answered last.", "short",
                  ("sum by (pool) (namespace_pool:excite_workers:ready{pool})", "ready {{pool}}"),
                  ("min by (pool) (excite_scale_desired{pool})", "wanted {{pool}}")),
            graph("Utilization", "Share of the workers' time in which they compute.", "percentunit",
                  ("max by (namespace) (namespace:excite_utilization:rate5m)", "{{namespace}}")),
        )),
        Row("Cost, where pools have a price in the chart's values", (
            graph("Cost of an image", "What all workers cost, idle ones too, over the images of the last hour. In the currency of the prices.",
                  "short", (f"sum(sum_over_time(namespace_pool:excite_workers:ready[1h:1m]){PRICED}) / 60"
                            " / sum(increase(excite_images_total[1h]))", "an image"), width=12),
            graph("Cost of an hour", "What the workers that are ready cost, by pool.", "short",
                  (f"sum by (pool) (namespace_pool:excite_workers:ready{PRICED})", "{{pool}}"), width=12, stack=True),
        )),
        Row("What goes wrong", (
            graph("Retries by class", "Jobs that were put on a rung, a second.", "ops",
                  ("sum by (class) (rate(excite_retries_total[RATE]))", "{{class}}"), stack=True),
            graph("Jobs given up by reason", "Jobs that died within 15 minutes.", "short",
                  ("sum by (reason) (namespace_reason:excite_dead:increase15m)", "{{reason}}"), stack=True),
            graph("Canary", "How long canaries take, and how long ago the last one succeeded.", "s",
                  ("histogram_quantile(0.95, sum by (le) (rate(excite_canary_duration_seconds_bucket[1h])))", "duration, p95 of an hour"),
                  ("max(namespace:excite_canary_age_seconds:leader)", "age")),
        )),
    ),
)

WORKERS = Dashboard(
    "excite-workers", "Excite / Workers", "What workers do with their time and memory.", ("workers_pool", "model"), True, (
        Row("Workers", (
            graph("Ready", "1: the last self-test passed. A worker that starts, or waits for the store, is at 0.", "short",
                  ("min by (pod, instance) (excite_selftest_ok)", "{{pod}} {{instance}}")),
            graph("Jobs held", "Jobs that were delivered to a worker and not acknowledged yet.", "short",
                  ("sum by (pod, instance) (excite_jobs_held)", "{{pod}} {{instance}}"), stack=True),
            graph("Computing", "Share of its time in which a worker computes. Low with jobs held: it loads or stores.", "percentunit",
                  ("sum by (pod, instance) (rate(excite_gpu_seconds_total[RATE]))", "{{pod}} {{instance}}")),
            graph("Since the last job", "Time since a worker was done with a job.", "s",
                  ("time() - (max by (pod, instance) (excite_last_job_timestamp_seconds) > 0)", "{{pod}} {{instance}}")),
            graph("Broker", "Connections to the broker, and whether it blocks publications.", "short",
                  (f"sum(excite_broker_connected{WORKER})", "connected"), (f"sum(excite_broker_blocked{WORKER})", "blocked")),
            Panel("What runs", "Programs and the kinds of machines that they found.", "short",
                  (("count by (service, version, kind) (excite_build_info)", ""),), "table"),
        )),
        Row("Time", (
            graph("Job duration", "From the delivery of a job to its acknowledgement.", "s",
                  *quantiles("excite_job_duration_seconds", "model", "{model}")),
            Panel("Job durations", "From the delivery of a job to its acknowledgement: how many took how long.", "s",
                  (("sum by (le) (increase(excite_job_duration_seconds_bucket{model}[RATE]))", "{{le}}"),), "heatmap"),
            graph("Seconds by stage", "What jobs spend their time with, a second. Denoising should be nearly all of it.", "s",
                  ("sum by (stage) (rate(excite_stage_duration_seconds_sum[RATE]))", "{{stage}}"), stack=True),
            graph("Stages, p95", "How long a stage takes.", "s",
                  ("histogram_quantile(0.95, sum by (stage, le) (rate(excite_stage_duration_seconds_bucket[RATE])))", "{{stage}}")),
            Panel("Uploads", "How long storing an image with its sidecar takes.", "s",
                  (('sum by (le) (increase(excite_stage_duration_seconds_bucket{stage="upload"}[RATE]))', "{{le}}"),), "heatmap"),
            graph("Wait in the worker", "From the delivery of a job to its run: jobs that wait for the micro-batch before them.", "s",
                  ("max(namespace:excite_worker_wait_seconds:p50)", "p50"), ("max(namespace:excite_worker_wait_seconds:p95)", "p95")),
        )),
        Row("Steps and micro-batches", (
            graph("Step duration by kind", "One denoising step of a micro-batch, with guidance and refinement, by kind of machine.", "s",
                  ("histogram_quantile(0.5, sum by (kind, le) (rate(excite_step_duration_seconds_bucket[RATE])"
                   " * on (namespace, job, instance) group_left (kind) excite_build_info))", "{{kind}} p50"),
                  ("histogram_quantile(0.95, sum by (kind, le) (rate(excite_step_duration_seconds_bucket[RATE])"
                   " * on (namespace, job, instance) group_left (kind) excite_build_info))", "{{kind}} p95")),
            Panel("Micro-batches", "How many jobs ran together.", "short",
                  (("sum by (le) (increase(excite_microbatch_size_bucket[RATE]))", "{{le}}"),), "heatmap"),
            graph("Largest micro-batch chosen", "The most jobs of a micro-batch, as workers chose it last, by model.", "short",
                  ("max by (model) (excite_batch_size{model})", "{{model}} max"), ("min by (model) (excite_batch_size{model})", "{{model}} min")),
            graph("Steps", "Denoising steps a second, and those whose result is lost.", "ops",
                  ("sum(rate(excite_steps_total[RATE]))", "made"), ("sum(rate(excite_steps_wasted_total[RATE]))", "in vain")),
            graph("Compute seconds by model", "Seconds of computing a second: busy workers.", "short",
                  ("sum by (model) (rate(excite_gpu_seconds_total{model}[RATE]))", "{{model}}"), stack=True),
            graph("Compute seconds an image", "Over an hour, loading left out; beside the mean of the week before.", "s",
                  ("max(namespace:excite_gpu_seconds_per_image:rate1h)", "last hour"),
                  ("max(avg_over_time(namespace:excite_gpu_seconds_per_image:rate1h[7d] offset 1h))", "week before")),
        )),
        Row("Models and memory", (
            graph("Models found in memory", "Share of runs whose model was in memory.", "percentunit",
                  ("sum(rate(excite_model_cache_hits_total[RATE])) / (sum(rate(excite_model_cache_hits_total[RATE]))"
                   " + sum(rate(excite_model_cache_misses_total[RATE])))", "found")),
            graph("Models in memory", "Bytes of the models of a worker.", "bytes",
                  ("sum by (pod, instance) (excite_model_cache_bytes)", "{{pod}} {{instance}}")),
            graph("Models given up", "Models that made room for others, in an hour.", "short",
                  ("sum(increase(excite_model_cache_evictions_total[1h]))", "given up")),
            graph("Loading a model", "Fetching and loading, p95 of an hour.", "s",
                  ("histogram_quantile(0.95, sum by (le) (rate(excite_model_load_seconds_bucket[1h])))", "p95")),
            graph("Out of memory", "What was done about it, in an hour: evict, halve or fail.", "short",
                  ("sum by (action) (increase(excite_oom_total[1h]))", "{{action}}"), stack=True),
            graph("Results found again", "New jobs by what came of looking for a result of an equal one, a second.", "ops",
                  ("sum by (result) (rate(excite_reuse_total[RATE]))", "{{result}}"), stack=True),
        )),
        Row("Interruptions", (
            graph("Preemptions", "Running jobs that were handed over because a worker had to stop, in an hour.", "short",
                  ("sum(increase(excite_preemptions_total[1h]))", "preemptions")),
            graph("Saved states", "States of unfinished jobs, by what was done and what came of it, a second.", "ops",
                  ("sum by (op, result) (rate(excite_checkpoints_total[RATE]))", "{{op}} {{result}}"), stack=True),
            graph("Calls that were repeated", "Calls to the store that were tried again, and calls to Redis that failed, a second.", "ops",
                  ("sum(rate(excite_store_retries_total[RATE]))", "store"), ("sum(rate(excite_redis_errors_total[RATE]))", "Redis")),
        )),
    ),
)

DELIVERY = Dashboard(
    "excite-delivery", "Excite / Delivery", "How batches come in, and jobs go to workers and come back.", (), False, (
        Row("Leading", (
            graph("Leader", "Which dispatcher leads. Together there should always be one.", "short",
                  ("max by (pod, instance) (excite_leader)", "{{pod}} {{instance}}"), stack=True),
            graph("Epoch", "Rises by one whenever a dispatcher takes the lead. A staircase: they take it from each other.", "short",
                  ("max(excite_epoch)", "epoch")),
            graph("Broker", "Whether the leader reaches the broker, and is blocked by it.", "short",
                  (f"max(excite_broker_connected{LEADS})", "connected"), (f"max(excite_broker_blocked{LEADS})", "blocked")),
        )),
        Row("To workers and back", (
            graph("Published", "Jobs published a second. `failed`: the broker did not confirm; they are published again.", "ops",
                  ("sum by (result) (rate(excite_published_total[RATE]))", "{{result}}")),
            graph("Reported", "Outcomes that came back, a second, and those that changed nothing: duplicates, or too late.", "ops",
                  ("sum by (kind) (rate(excite_outcomes_total[RATE]))", "{{kind}}"),
                  ("sum(rate(excite_stale_outcomes_total[RATE]))", "changed nothing")),
            graph("Delivered again", "Deliveries of jobs that were known, a second. restarted: begun anew, all others cost nothing.", "ops",
                  ("sum by (kind) (rate(excite_redeliveries_total[RATE]))", "{{kind}}"), stack=True),
            graph("In the broker", "Messages that no worker has, by lane.", "short",
                  (f'max by (lane) (excite_queue_jobs{{state="ready"}}{LEADS})', "{{lane}}"), stack=True),
            graph("Retries by class", "Jobs put on a rung, a second.", "ops",
                  ("sum by (class) (rate(excite_retries_total[RATE]))", "{{class}}"), stack=True),
            graph("On rungs", "Jobs that wait for their next try.", "short",
                  ('sum(namespace_state:excite_queue_jobs:leader{state="retrying"})', "retrying")),
            graph("Jobs given up by reason", "Jobs that died, in an hour.", "short",
                  ("sum by (reason) (increase(excite_dead_total[1h]))", "{{reason}}"), stack=True),
            graph("Acknowledged too late", "Acknowledgements whose connection was lost before, in an hour: their jobs are delivered again.", "short",
                  ("sum(increase(excite_leases_lost_total[1h]))", "too late")),
            graph("Put aside, not shown", "Messages that could not be read, and calls to Redis that failed at the leader, in an hour.", "short",
                  ("sum(increase(excite_unreadable_total[1h]))", "unreadable messages"),
                  ("sum(increase(excite_mirror_errors_total[1h]))", "calls to Redis")),
        )),
        Row("Accepting", (
            graph("Submissions", "Submissions by what became of them, a second.", "ops",
                  ("sum by (result) (rate(excite_accept_total[RATE]))", "{{result}}"), stack=True),
            graph("Lines", "Lines that were checked, a second.", "ops",
                  ("sum(rate(excite_accept_lines_total[RATE]))", "lines")),
            graph("Bytes", "Bytes of uploads, unzipped, a second.", "Bps",
                  ("sum(rate(excite_accept_bytes_total[RATE]))", "bytes")),
            graph("Requests", "Requests by status, a second.", "reqps",
                  ("sum by (status) (rate(excite_http_requests_total[RATE]))", "{{status}}"), stack=True),
            graph("Errors by route", "Requests that were answered with a status of 500 or more, a second.", "reqps",
                  ('sum by (method, route) (rate(excite_http_requests_total{status=~"5.."}[RATE]))', "{{method}} {{route}}"), stack=True),
            graph("Time to answer, p95", "By route, without the body's way back.", "s",
                  ("histogram_quantile(0.95, sum by (method, route, le) (rate(excite_http_request_duration_seconds_bucket[RATE])))",
                   "{{method}} {{route}}")),
        )),
    ),
)

DASHBOARDS = (OVERVIEW, WORKERS, DELIVERY)
