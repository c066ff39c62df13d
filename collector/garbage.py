"""What the collector of cycles has to do in a process that serves.

Owns: its thresholds, and what it need not look at any more. Refuses to know: who serves, and how long it took
(`collector.monitor.gc_share`).

A request makes some forty objects that the collector counts and leaves no cycle behind. Yet with Python's own settings
each of the full passes, one in some ten thousand requests, goes through all that the process was started with, 62,000
objects, and stops the loop for 20 to 60 ms. Measured over the application without a server (323,000 requests, CPython
3.11, two shared cores), share of the CPU time and longest pause:

    as Python has it                    2.6 %, 62 ms
    the start frozen                    0.9 %, 21 ms
    and 2000 objects before a pass      1.0 %, 18 ms
    and 5000                            0.2 %,  4 ms
    and 10,000                          0.0 %,  3 ms

`collector serve` so, under 64 connections: 3 ms in 78,000 requests and 10 s of CPU.

The rate of requests does not change by any of it. What does is how many requests may be in work at once: 512
connections that wait for a Kafka which stands still for most of every second hold 20,000 objects, and with 5000 before
a pass 15 % of the (little) CPU time went into passes over them, each of which freed nothing (`just bench memory`, row
M3). With 50,000, and rarer full passes, it was 0.0 %. 50,000 objects are about ten megabytes of cycles that wait at
worst: exceptions and the nurseries of broken connections.
"""

import gc

__all__ = ["THRESHOLDS", "spare_the_collector"]

#: Objects more than were freed before a young pass, young passes before a middle one, those before a full one.
THRESHOLDS = (50_000, 20, 50)


def spare_the_collector() -> None:
    """Collect once, then never look again at what there is now; in a process that has come to serve, and only there.

    What becomes a cycle later is not found in there: it lives as long as the process.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
