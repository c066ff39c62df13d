"""A producing process: one client, one run. The benchmark starts ``python -m tests.bench.kafka.child SPEC`` (JSON).

Owns: which loop a client runs on, and the report at the end. It says ``begin`` and ``end`` of its window on stdout, one
JSON line each, then its figures; anything else there is a traceback. A process imports its own client only, so that its
memory is that client's.
"""

import asyncio
import os
import sys
from cProfile import Profile

import msgspec

from tests.bench.kafka.meter import Figures, Meter, announce
from tests.bench.kafka.sampling import Profiler, Sampler
from tests.bench.kafka.spec import Spec

__all__ = ["main"]


def main() -> None:
    """Do what the argument says."""
    spec = msgspec.json.decode(sys.argv[1], type=Spec)
    if spec.core is not None:
        os.sched_setaffinity(0, {spec.core})
    profiler: Profiler | None = None
    if spec.profile is not None:
        profiler = Sampler() if spec.sampled else Profile()
    meter = Meter(spec.warmup_s, spec.measure_s, profiler)
    figures = _run(spec, meter)
    if profiler is not None and spec.profile is not None:
        profiler.dump_stats(spec.profile)
    announce("result", **(meter.figures() if figures is None else figures))


def _run(spec: Spec, meter: Meter) -> Figures | None:
    match spec.client:
        case "ours":
            import trio

            from tests.bench.kafka import many_topics, ours, ours_queue

            loops = ours.WORKLOADS | ours_queue.WORKLOADS | many_topics.WORKLOADS
            return trio.run(loops[spec.workload], spec, meter)
        case "aiokafka":
            import uvloop

            from tests.bench.kafka import peer_aiokafka

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(peer_aiokafka.WORKLOADS[spec.workload](spec, meter))
        case "confluent":
            from tests.bench.kafka import peer_confluent

            return peer_confluent.WORKLOADS[spec.workload](spec, meter)
        case "kafka-python":
            from tests.bench.kafka import peer_kafka_python

            return peer_kafka_python.WORKLOADS[spec.workload](spec, meter)
        case "builders":
            from tests.bench.kafka import encoding

            return encoding.WORKLOADS[spec.workload](spec, meter)
        case other:
            raise SystemExit(f"no client is called {other}")


if __name__ == "__main__":
    main()
    # librdkafka's and kafka-python's threads would be waited for: everything has been reported.
    sys.stdout.flush()
    os._exit(0)
