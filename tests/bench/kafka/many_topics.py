"""Row K8: the loop's lag while metadata of very many partitions is taken in.

Owns: a probe in the producer's loop. Refuses to know: what the figures are held against, and the cluster, which is
`many_topics_cluster` in a process of its own.
"""

import sys
from collections.abc import Awaitable, Callable
from statistics import median
from subprocess import PIPE, Popen
from time import perf_counter

import trio

from kafka_client import ProducerConfig, ProducerObserver, Record, open_producer
from tests.bench.figures import percentile
from tests.bench.kafka.meter import Figures, Meter
from tests.bench.kafka.spec import Spec

__all__ = ["WORKLOADS"]

#: The probe sleeps so long; what it oversleeps is the lag.
_PROBE_S = 0.001
#: Every second, instead of every minute: more refreshes to look at.
_REFRESH_S = 1.0
#: A lag that ended so close to an answer belongs to it.
_NEAR_S = 0.15


class _Refreshes(ProducerObserver):
    """When answers about the cluster came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def metadata_refreshed(self, *event: object, **fields: object) -> None:
        self.times.append(perf_counter())


async def refresh_lag(spec: Spec, meter: Meter) -> Figures:
    """Produce once to every topic, then watch the loop while metadata is refreshed every second.

    On cancellation: the cluster's process is ended.
    """
    topics, partitions = spec.number("topics", 1000), spec.number("topic_partitions", 24)
    argv = [sys.executable, "-m", "tests.bench.kafka.many_topics_cluster", str(topics), str(partitions)]
    with Popen(argv, stdin=PIPE, stdout=PIPE) as cluster:  # noqa: ASYNC220  # nothing else happens yet
        assert cluster.stdout is not None
        address = cluster.stdout.readline().decode().strip()
        try:
            return await _watch(address, topics, spec.measure_s, meter)
        finally:
            cluster.terminate()


async def _watch(address: str, topics: int, measure_s: float, meter: Meter) -> Figures:
    seen = _Refreshes()
    lags: list[tuple[float, float]] = []
    config = ProducerConfig(bootstrap_servers=address, metadata_max_age_s=_REFRESH_S)
    async with open_producer(config, observer=seen) as producer:
        await producer.send_many([Record(f"topic-{number}", b"first") for number in range(topics)])
        if producer.partitions_of(f"topic-{topics - 1}") is None:
            raise RuntimeError("the last topic is not known")
        seen.times.clear()
        end = perf_counter() + measure_s
        with meter.profiled():
            while True:
                started = perf_counter()
                await trio.sleep(_PROBE_S)
                now = perf_counter()
                lags.append((now, now - started - _PROBE_S))
                if now > end:
                    break
        await producer.close(0)
    return _figures(seen.times, lags)


def _figures(refreshes: list[float], lags: list[tuple[float, float]]) -> Figures:
    near: list[float] = []
    elsewhere: list[float] = []
    for when in refreshes:
        around = [lag for ended, lag in lags if abs(ended - when) < _NEAR_S]
        if around:
            near.append(max(around))
    for ended, lag in lags:
        if all(abs(ended - when) >= _NEAR_S for when in refreshes):
            elsewhere.append(lag)
    if not near:
        raise RuntimeError("no refresh fell into the window")
    return {
        "refreshes": len(near),
        "lag_ms": median(near) * 1e3,
        "worst_ms": max(near) * 1e3,
        "elsewhere_p99_ms": percentile(sorted(elsewhere), 0.99) * 1e3,
        "elsewhere_worst_ms": max(elsewhere, default=0.0) * 1e3,
    }


WORKLOADS: dict[str, Callable[[Spec, Meter], Awaitable[Figures | None]]] = {"refresh_lag": refresh_lag}
