"""The ZooKeeper that releases of Kafka before 3.3 keep their metadata in, out of the same jars.

Owns: its process. Refuses to know: Kafka.

Invariant: when `open_zookeeper` yields, it accepts connections.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from collector.devtools.children import open_child
from collector.devtools.jvm import java_command, telling
from collector.devtools.kafka_install import KafkaInstall, KafkaUnavailable
from collector.devtools.kafka_properties import SESSION_TIMEOUT_MS, claim_port, write_properties

__all__ = ["open_zookeeper"]

START_TIMEOUT_S = 30.0
#: Between two tries to connect.
POLL_S = 0.05


@asynccontextmanager
async def open_zookeeper(install: KafkaInstall, directory: Path) -> AsyncIterator[str]:
    """Run one for as long as the block lasts; yields its address, ``host:port``. Its data stay in ``directory``.

    Raises:
        KafkaUnavailable: It does not start.

    On cancellation: as at the end of the block, it is ended.
    """
    port = claim_port(0)
    file = directory / "zookeeper.properties"
    rows = {
        "dataDir": str(directory / "zookeeper"),
        "clientPort": str(port),
        "clientPortAddress": "127.0.0.1",
        "maxClientCnxns": "0",
        "admin.enableServer": "false",
        "tickTime": "1000",
        "minSessionTimeout": str(SESSION_TIMEOUT_MS),
    }
    write_properties(file, rows)
    argv = java_command(install, directory, "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(file))
    async with open_child(argv, name="zookeeper", log=directory / "kafka.log", grace_s=2.0) as child:
        accepts = False
        with trio.move_on_after(START_TIMEOUT_S):
            while child.running and not accepts:
                await trio.sleep(POLL_S)
                accepts = await _accepts(port)
        if not accepts:
            raise KafkaUnavailable(
                f"ZooKeeper did not start{telling(child.tail)} (all of it: {directory}/kafka.log); or use --broker mock"
            )
        yield f"127.0.0.1:{port}"


async def _accepts(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        await trio.lowlevel.checkpoint()
        return False
    await stream.aclose()
    return True
