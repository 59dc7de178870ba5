"""Prometheus metrics, made from counts when they are asked for. docs/observability.md lists them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from proxy import __version__
from proxy.admin.counts import SETUP_BUCKETS_S, Counts
from proxy.admin.view import ProcessView, Usage

__all__ = ["CONTENT_TYPE", "render"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Metrics(Collector):
    """Turns counts and the state of the process into metrics."""

    def __init__(self, view: ProcessView) -> None:
        self._view = view

    def collect(self) -> Iterable[Metric]:
        """All metrics of ours."""
        counts = self._view.counts()
        yield _gauge("build_info", "The version.", {(__version__,): 1}, "version")
        yield _counter("calls", "Calls that ended.", counts.calls, "outcome", "ended_by")
        yield _setup(counts)
        talk = CounterMetricFamily("trunkline_talk_seconds", "Seconds that ended calls were answered.")
        talk.add_metric([], counts.talk_sum_s)
        yield talk
        yield _counter("attempts", "Attempts that ended.", counts.attempts, "target", "rules", "status", "cause")
        yield _counter("hops_failed", "Addresses of targets that failed within an attempt.", counts.hops, "target")
        yield _counter("retries", "Retries, by the target that the policy names.", counts.retries, "target")
        yield _counter("messages", "SIP messages of calls.", counts.messages, "leg", "direction")
        yield _counter("rule_hits", "Messages that a rule changed.", counts.rules, "rule")
        yield _counter("refused", "Requests refused before they became a call.", counts.refused, "method", "status")
        yield _counter("dropped", "Messages dropped without an answer.", counts.dropped, "why")
        yield _counter("webhooks", "Webhooks at the tap.", counts.webhooks, "result")
        yield from self._process()

    def _process(self) -> Iterable[Metric]:
        view = self._view
        limits: dict[tuple[str, ...], int] = {
            (name.removeprefix("limit_"),): value
            for name, value in view.counters().items()
            if name.startswith("limit_")
        }
        yield _counter("limits_reached", "What limits turned away.", limits, "limit")
        yield _gauge("calls_in_progress", "Calls in progress.", {(): view.calls_in_progress()})
        yield _gauge("table_size", "Entries in a table.", {(k,): v for k, v in view.tables().items()}, "table")
        up: dict[tuple[str, ...], int] = {(name,): int(state) for name, state in view.targets().items()}
        yield _gauge("target_up", "Whether a target answers its pings (1 where none are sent).", up, "target")
        rules: dict[tuple[str, ...], int] = dict.fromkeys(view.rules().items(), 1)
        yield _gauge("rules_info", "The rule sets in use.", rules, "rules", "version")
        yield _gauge("event_loop_lag_seconds", "Longest delay within the last minute.", {(): view.lag_s()})
        yield _gauge("ready", "Whether new calls are taken.", {(): int(bool(view.listeners()) and not view.draining())})
        yield from self._workers()
        store = view.store_state()
        if store is not None:
            yield _gauge("store_up", "Whether the last write to the call store succeeded.", {(): int(store["ok"])})
            yield _gauge("store_waiting_events", "Events that wait to be stored.", {(): store["waiting"]})
            yield _counter("store_written_events", "Events stored.", {(): store["written"]})
            yield _counter("store_dropped_events", "Events that the store lost.", {(): store["dropped"]})

    def _workers(self) -> Iterable[Metric]:
        """What is told apart by worker."""
        workers = [(str(worker.number), worker) for worker in self._view.workers()]
        if not workers:
            return
        up: dict[tuple[str, ...], int] = {(name,): int(worker.up) for name, worker in workers}
        yield _gauge("worker_up", "Whether a worker runs.", up, "worker")
        restarts: dict[tuple[str, ...], int] = {(name,): worker.restarts for name, worker in workers}
        yield _counter("worker_restarts", "How often a successor took a worker's place.", restarts, "worker")
        calls: dict[tuple[str, ...], int] = {(name,): worker.calls for name, worker in workers}
        yield _gauge("worker_calls_in_progress", "Calls in progress of a worker.", calls, "worker")
        lags: dict[tuple[str, ...], float] = {(name,): worker.lag_s for name, worker in workers}
        yield _gauge("worker_event_loop_lag_seconds", "Longest delay within the last minute.", lags, "worker")


class _Usage(Collector):
    """What `prometheus_client.ProcessCollector` says of one process, for several."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage

    def collect(self) -> Iterable[Metric]:
        """CPU, memory and files, under the names that they always have."""
        usage = self._usage
        yield CounterMetricFamily("process_cpu_seconds_total", "CPU time of all processes.", usage.cpu_s)
        for name, text, value in (
            ("process_resident_memory_bytes", "Memory in RAM of all processes.", usage.resident_bytes),
            ("process_open_fds", "Open files of all processes.", usage.open_files),
            ("process_max_fds", "Open files that one process may have.", usage.max_files),
            ("process_start_time_seconds", "When it was started, in Unix seconds.", usage.started),
        ):
            yield GaugeMetricFamily(name, text, value)


def _counter(name: str, text: str, values: Mapping[tuple[str, ...], float], *labels: str) -> Metric:
    family = CounterMetricFamily(f"trunkline_{name}", text, labels=labels)
    for key, value in dict(values).items():
        family.add_metric(key, value)
    return family


def _gauge(name: str, text: str, values: Mapping[tuple[str, ...], float], *labels: str) -> Metric:
    family = GaugeMetricFamily(f"trunkline_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _setup(counts: Counts) -> Metric:
    family = HistogramMetricFamily("trunkline_setup_seconds", "From the caller's INVITE to our 200.")
    total = 0
    buckets: list[tuple[str, float]] = []
    for end, count in zip((*SETUP_BUCKETS_S, float("inf")), list(counts.setup), strict=True):
        total += count
        buckets.append(("+Inf" if end == float("inf") else str(end), total))
    family.add_metric([], buckets, counts.setup_sum_s)
    return family


def render(view: ProcessView) -> bytes:
    """All metrics in the Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Metrics(view))
    usage = view.usage()
    if usage is None:
        ProcessCollector(registry=registry)
    else:
        registry.register(_Usage(usage))
    return generate_latest(registry)
