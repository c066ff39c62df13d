"""librdkafka's mock cluster as a child process: a broker without Java, there at once and gone without a trace.

Owns: the child's start and the conversation with it. Refuses to know: Kafka's protocol, and what the mock does not
check (sequences, CRC, sizes): what has to hold against a strict broker is tested against `kafka_client.testing`.

Invariant: when `open_mock` yields, the topics exist with the partitions asked for.
"""

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from collector.devtools.children import Child, ChildFailed, open_child

__all__ = ["MockKafka", "open_mock"]

START_TIMEOUT_S = 20.0


@dataclass(slots=True, kw_only=True)
class MockKafka:
    """A running mock cluster; its brokers are numbered from 1."""

    child: Child
    bootstrap_servers: str
    answers: "trio.MemoryReceiveChannel[str]" = field(repr=False)

    async def command(self, *words: object) -> None:
        """Tell the mock: ``down 1``, ``up 1``, ``rtt 1 800`` (ms), ``leader events 3 2``, ``topic t 12 1``,
        ``refuse 0 19 5``: the next five Produce requests (API 0) get error 19.

        ``leader events 3 -1`` takes the leader away, and closes every connection.

        Raises:
            ChildFailed: It refuses, or has ended.

        On cancellation: the command may or may not have been done.
        """
        stdin = self.child.process.stdin
        assert stdin is not None
        try:
            stdin.write((" ".join(map(str, words)) + "\n").encode())
            stdin.flush()
        except OSError as error:
            raise self.child.failure("has ended") from error
        answer = await self.answers.receive()
        if answer != "ok":
            raise ChildFailed(f"mock broker: {' '.join(map(str, words))}: {answer}")

    async def wait_ended(self) -> ChildFailed:
        """Wait until the mock has ended and return the error that says so. On cancellation: nothing happens."""
        code = await self.child.wait_ended()
        return self.child.failure(f"has ended with {code}")


@asynccontextmanager
async def open_mock(topics: Mapping[str, int] | None = None, *, brokers: int = 1) -> AsyncIterator[MockKafka]:
    """Run a mock cluster for as long as the block lasts.

    Args:
        topics: Name to number of partitions; by default ``events`` and ``events-bad`` with 12 and 3.
        brokers: How many.

    Raises:
        ChildFailed: It did not start; one line.

    On cancellation: as at the end of the block, the child is ended.
    """
    topics = {"events": 12, "events-bad": 3} if topics is None else topics
    send, receive = trio.open_memory_channel[str](64)

    def on_line(line: str) -> None:
        if line.startswith(("ready ", "ok", "error ")):  # the rest is the library's own chatter
            send.send_nowait(line)

    argv = [sys.executable, "-m", "collector.devtools.mock_child", str(brokers)]
    argv += [f"{name}:{partitions}" for name, partitions in topics.items()]
    async with open_child(argv, name="mock broker", on_line=on_line, keep_stdin=True, grace_s=1.0) as child:
        first = ""
        with trio.move_on_after(START_TIMEOUT_S):
            first = await _first_line(child, receive)
        word, _, bootstrap_servers = first.partition(" ")
        if word != "ready":
            raise child.failure(f"did not start: {first or 'no answer'}")
        yield MockKafka(child=child, bootstrap_servers=bootstrap_servers, answers=receive)


async def _first_line(child: Child, receive: "trio.MemoryReceiveChannel[str]") -> str:
    lines: list[str] = []

    async def read() -> None:
        lines.append(await receive.receive())
        nursery.cancel_scope.cancel(reason="the child has spoken")

    async def ended() -> None:
        await child.wait_ended()
        await trio.sleep(0.05)  # what it said last is still on its way through the pipe
        nursery.cancel_scope.cancel(reason="the child has ended")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(ended)
    return lines[0] if lines else "; ".join(child.tail)
