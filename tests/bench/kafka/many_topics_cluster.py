"""A cluster with very many partitions: ``python -m tests.bench.kafka.many_topics_cluster TOPICS PARTITIONS``.

A fake one: a real broker would spend minutes making 24 000 logs. It prints its address and ends with its standard
input.
"""

import sys

import trio

from kafka_client.testing import open_fake_cluster


async def serve(topics: int, partitions: int) -> None:
    """Be the cluster until standard input ends. On cancellation: it stops listening."""
    named = {f"topic-{number}": partitions for number in range(topics)}
    async with open_fake_cluster(brokers=3, topics=named, listen=True) as cluster:
        print(",".join(cluster.tcp_bootstrap_servers), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


if __name__ == "__main__":
    trio.run(serve, int(sys.argv[1]), int(sys.argv[2]))
