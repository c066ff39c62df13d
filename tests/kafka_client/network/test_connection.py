"""One connection: order, cancellation, silence, and how its end is told."""

from typing import Any

import pytest
import trio

from kafka_client.config import ProducerConfig
from kafka_client.errors import ConnectionLost, ProtocolError
from kafka_client.network.connection import open_connection
from kafka_client.network.plainly import raise_plainly
from kafka_client.wire import metadata

ASK = metadata.MetadataRequest(topics=[])
PRODUCE = (0, 13)


def ignore(body: memoryview) -> None:
    """An answer that nobody wants."""


async def test_exchange_returns_the_decoded_answer(config: ProducerConfig, peer: Any, empty_metadata: bytes) -> None:
    async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def answer() -> None:
                asked = await peer.link.expect()
                assert (asked.api_key, asked.version) == (3, 13)
                await peer.link.answer(asked.correlation_id, empty_metadata)

            found = await connection.exchange(metadata, ASK)
        assert found.brokers == ()
        assert repr(connection) == "<Connection broker:9092 open, 0 in flight>"
    assert repr(connection) == (
        "<Connection broker:9092 lost: the connection to broker:9092 was closed by us, 0 in flight>"
    )


async def test_answers_reach_their_callbacks_in_order_though_cut_anywhere(config: ProducerConfig, peer: Any) -> None:
    found: list[tuple[int, bytes]] = []
    async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
        for number in range(5):
            await connection.write(
                *PRODUCE, b"%d" % number, lambda body, number=number: found.append((number, bytes(body)))
            )
        stream = b"".join([peer.link.frame((await peer.link.expect()).correlation_id, b"x%d" % n) for n in range(5)])
        for start in range(0, len(stream), 7):
            await peer.link.stream.send_all(stream[start : start + 7])
            await trio.testing.wait_all_tasks_blocked()
        assert found == [(number, b"x%d" % number) for number in range(5)]
        assert connection.in_flight == 0


# Correlation desync after a cancelled waiter (kafka-python #1744, #1748; afkak #83).
async def test_cancelled_exchange_keeps_its_place_and_the_next_answer_matches(
    config: ProducerConfig, peer: Any, empty_metadata: bytes
) -> None:
    async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.exchange, metadata, ASK)
                first = await peer.link.expect()
                scope.cancel(reason="the waiter goes")
        assert connection.in_flight == 1
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def answer() -> None:
                second = await peer.link.expect()
                await peer.link.answer(first.correlation_id, b"whatever")
                await peer.link.answer(second.correlation_id, empty_metadata)

            assert (await connection.exchange(metadata, ASK)).topics == []
        assert connection.is_open
    assert len(peer.links) == 1


async def test_exchange_cancelled_before_it_was_written_goes_out_whole(
    config: ProducerConfig, peer: Any, empty_metadata: bytes
) -> None:
    async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
        with trio.CancelScope() as scope:
            scope.cancel(reason="the deadline was over before")
            await connection.exchange(metadata, ASK)
        asked = await peer.link.expect()
        await peer.link.answer(asked.correlation_id, empty_metadata)
        await trio.testing.wait_all_tasks_blocked()
        assert (connection.is_open, connection.in_flight) == (True, 0)


async def test_exchanges_at_once_are_each_answered(config: ProducerConfig, peer: Any, empty_metadata: bytes) -> None:
    found = []
    async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:

        async def ask() -> None:
            found.append(await connection.exchange(metadata, ASK))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask)
            for _ in range(4):
                await peer.link.answer((await peer.link.expect()).correlation_id, empty_metadata)
    assert len(found) == 4


async def test_closed_by_peer_leaves_the_block_with_a_plain_loss(config: ProducerConfig, peer: Any) -> None:
    with pytest.raises(ConnectionLost, match="broker:9092 closed the connection"):
        async with open_connection("broker", 9092, config=config, connector=peer.connector):
            await peer.link.close()
            await trio.sleep_forever()


async def test_loss_while_an_exchange_waits_is_raised_by_it(config: ProducerConfig, peer: Any) -> None:
    raised = []
    with pytest.raises(ConnectionLost, match="closed the connection"):
        async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def hang_up() -> None:
                    await peer.link.expect()
                    await peer.link.close()

                try:
                    await connection.exchange(metadata, ASK)
                except ConnectionLost as error:
                    raised.append(str(error))
                    raise
    assert len(raised) == 1
    assert raised[0].startswith("broker:9092 closed the connection on our first request; does the listener want SASL")


async def test_exchange_from_outside_the_block_is_woken_by_the_loss(config: ProducerConfig, peer: Any) -> None:
    opened: list[Any] = []
    raised: list[ConnectionLost] = []
    entered = trio.Event()

    async def wait_outside() -> None:
        await entered.wait()
        with pytest.raises(ConnectionLost, match="closed the connection") as caught:
            await opened[0].exchange(metadata, ASK)
        raised.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_outside)
        with pytest.raises(ConnectionLost):
            async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
                opened.append(connection)
                entered.set()
                await peer.link.expect()
                await peer.link.close()
                await trio.sleep_forever()
    assert len(raised) == 1


async def test_errors_of_the_block_leave_it_as_they_were_raised(config: ProducerConfig, peer: Any) -> None:
    with pytest.raises(KeyError, match="of the block"):
        async with open_connection("broker", 9092, config=config, connector=peer.connector):
            raise KeyError("of the block")
    assert await peer.link.asked() is None


async def test_loss_raised_in_a_nursery_of_the_block_is_not_grouped(config: ProducerConfig, peer: Any) -> None:
    with pytest.raises(ConnectionLost, match="closed the connection") as caught:
        async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(connection.exchange, metadata, ASK)
                await peer.link.expect()
                await peer.link.close()
    assert not isinstance(caught.value, BaseExceptionGroup)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([ConnectionLost("a")], ConnectionLost),
        ([ConnectionLost("a"), ExceptionGroup("", [ConnectionLost("b")])], ConnectionLost),
        ([ConnectionLost("a"), KeyError("bug")], KeyError),
        ([KeyError("bug")], KeyError),
        ([KeyError("bug"), ValueError("bug")], ExceptionGroup),
        ([ExceptionGroup("the block's own", [KeyError("bug")])], ExceptionGroup),
        ([ConnectionLost("a"), KeyboardInterrupt()], KeyboardInterrupt),
    ],
)
def test_what_leaves_a_block_is_as_plain_as_it_can_be(
    errors: list[BaseException], expected: type[BaseException]
) -> None:
    with pytest.raises(expected) as caught:
        raise_plainly(BaseExceptionGroup("of a nursery", errors))
    assert not isinstance(caught.value, BaseExceptionGroup) or not caught.group_contains(ConnectionLost)


async def test_bug_in_a_callback_leaves_the_block_as_it_is(config: ProducerConfig, peer: Any) -> None:
    def bug(body: memoryview) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
            await connection.write(*PRODUCE, b"", bug)
            await peer.link.answer((await peer.link.expect()).correlation_id, b"")
            await trio.sleep_forever()


async def test_bug_beside_a_loss_is_what_is_raised(config: ProducerConfig, peer: Any) -> None:
    with pytest.RaisesGroup(ZeroDivisionError):  # of the block's own nursery
        async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.exchange, metadata, ASK)

                @nursery.start_soon
                async def fail() -> None:
                    try:
                        await trio.sleep_forever()
                    finally:
                        raise ZeroDivisionError

                await peer.link.expect()
                await peer.link.close()


async def test_protocol_error_out_of_a_callback_ends_the_connection(config: ProducerConfig, peer: Any) -> None:
    def refuse(body: memoryview) -> None:
        raise ProtocolError("nonsense")

    with pytest.raises(ProtocolError, match="broker:9092: nonsense"):
        async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
            await connection.write(*PRODUCE, b"", refuse)
            await peer.link.answer((await peer.link.expect()).correlation_id, b"")
            await trio.sleep_forever()


async def test_answer_that_does_not_decode_ends_the_connection(config: ProducerConfig, peer: Any) -> None:
    with pytest.raises(ProtocolError, match="broker:9092: Metadata v13: 4 bytes expected"):
        async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def answer() -> None:
                    await peer.link.answer((await peer.link.expect()).correlation_id, b"")

                await connection.exchange(metadata, ASK)
    assert not connection.is_open


async def test_answer_that_nobody_asked_for_ends_the_connection(config: ProducerConfig, peer: Any) -> None:
    with pytest.raises(ProtocolError, match="was not sent"):
        async with open_connection("broker", 9092, config=config, connector=peer.connector):
            await peer.link.answer(0, b"")
            await trio.sleep_forever()


# Silence


async def test_silence_ends_the_connection_at_request_timeout_exactly(
    config: ProducerConfig, peer: Any, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(ConnectionLost, match="no answer to Produce for 30 s from broker:9092"):
        async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
            await trio.sleep(7)
            await connection.write(*PRODUCE, b"", ignore)
            await trio.sleep_forever()
    assert trio.current_time() == 37.0


async def test_idle_connection_stays_open(
    config: ProducerConfig, peer: Any, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
        await connection.write(*PRODUCE, b"", ignore)
        await peer.link.answer((await peer.link.expect()).correlation_id, b"")
        await trio.sleep(12 * 3600)
        assert connection.is_open


async def test_silence_counts_anew_for_each_request(
    config: ProducerConfig, peer: Any, autojump_clock: trio.testing.MockClock
) -> None:
    # The deadline that the first request set is early for the second one; the reader looks and goes on.
    with pytest.raises(ConnectionLost, match="no answer to Produce"):
        async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
            await connection.write(*PRODUCE, b"", ignore)
            await trio.sleep(20)
            await peer.link.answer((await peer.link.expect()).correlation_id, b"")
            await trio.sleep(5)
            await connection.write(*PRODUCE, b"", ignore)
            await trio.sleep_forever()
    assert trio.current_time() == 55.0


async def test_slow_broker_that_answers_one_after_the_other_is_not_dead(
    config: ProducerConfig, peer: Any, autojump_clock: trio.testing.MockClock
) -> None:
    # Five in flight, each waiting 20 s for its replicas: the last answer comes after 100 s.
    async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
        for _ in range(5):
            await connection.write(*PRODUCE, b"", ignore)
        for _ in range(5):
            asked = await peer.link.expect()
            await trio.sleep(20)
            await peer.link.answer(asked.correlation_id, b"")
        await trio.testing.wait_all_tasks_blocked()
        assert (connection.is_open, connection.in_flight) == (True, 0)
    assert trio.current_time() == 100.0


async def test_answer_dribbled_for_minutes_is_not_silence(
    config: ProducerConfig, peer: Any, autojump_clock: trio.testing.MockClock
) -> None:
    found: list[bytes] = []
    async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
        await connection.write(*PRODUCE, b"", lambda body: found.append(bytes(body)))
        for byte in peer.link.frame((await peer.link.expect()).correlation_id, b"slowly"):
            await trio.sleep(29)
            await peer.link.stream.send_all(bytes((byte,)))
        await trio.testing.wait_all_tasks_blocked()
        assert found == [b"slowly"]


async def test_request_with_a_longer_timeout_has_it(
    config: ProducerConfig, peer: Any, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(ConnectionLost, match="no answer to Metadata for 300 s"):
        async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
            await connection.exchange(metadata, ASK, timeout_s=300)
    assert trio.current_time() == 300.0


# Writing


class StuckStream(trio.abc.HalfCloseableStream):
    """Passes ``limit`` bytes on, then blocks every write."""

    def __init__(self, inner: trio.abc.HalfCloseableStream, limit: int) -> None:
        self._inner = inner
        self.limit = limit

    async def send_all(self, data: bytes) -> None:
        taken, self.limit = min(self.limit, len(data)), max(0, self.limit - len(data))
        await self._inner.send_all(data[:taken])
        if taken < len(data):
            await trio.sleep_forever()

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._inner.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self._inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._inner.aclose()


async def test_write_cancelled_halfway_loses_the_connection(
    config: ProducerConfig, peer: Any, autojump_clock: trio.testing.MockClock
) -> None:
    async def connector(host: str, port: int) -> trio.abc.HalfCloseableStream:
        return StuckStream(await peer.connector(host, port), 100)

    with pytest.raises(ConnectionLost, match="a write to broker:9092 was cut short"):
        async with open_connection("broker", 9092, config=config, connector=connector) as connection:
            with trio.move_on_after(1) as scope:
                await connection.write(*PRODUCE, bytes(1000), ignore)
            assert scope.cancelled_caught
            assert connection.writes_entered_total == 1
            assert not connection.is_open
            with pytest.raises(ConnectionLost, match="cut short"):
                await connection.write(*PRODUCE, b"", ignore)
            assert connection.writes_entered_total == 1
            await trio.sleep_forever()


async def test_write_by_two_tasks_at_once_is_refused(
    config: ProducerConfig, peer: Any, autojump_clock: trio.testing.MockClock
) -> None:
    async def connector(host: str, port: int) -> trio.abc.HalfCloseableStream:
        return StuckStream(await peer.connector(host, port), 100)

    with pytest.raises(ConnectionLost):
        async with open_connection("broker", 9092, config=config, connector=connector) as connection:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.write, *PRODUCE, bytes(1000), ignore)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError, match="another task writes to broker:9092"):
                    await connection.write(*PRODUCE, b"", ignore)
                nursery.cancel_scope.cancel(reason="enough")


async def test_write_waits_for_an_exchange_that_is_being_written(
    config: ProducerConfig, peer: Any, autojump_clock: trio.testing.MockClock
) -> None:
    streams: list[StuckStream] = []

    async def connector(host: str, port: int) -> trio.abc.HalfCloseableStream:
        streams.append(StuckStream(await peer.connector(host, port), 100))
        return streams[0]

    with pytest.raises(ConnectionLost):
        async with open_connection("broker", 9092, config=config, connector=connector) as connection:
            async with trio.open_nursery() as nursery:
                streams[0].limit = 5
                nursery.start_soon(connection.exchange, metadata, ASK)
                await trio.testing.wait_all_tasks_blocked()
                with trio.move_on_after(1) as scope:
                    await connection.write(*PRODUCE, b"", ignore)
                assert scope.cancelled_caught
                assert (connection.writes_entered_total, connection.is_open) == (1, True)
                nursery.cancel_scope.cancel(reason="enough")
            await peer.link.close()
            await trio.sleep_forever()


async def test_write_to_a_broken_stream_is_a_loss_with_its_cause(config: ProducerConfig, peer: Any) -> None:
    with pytest.raises(ConnectionLost) as caught:
        async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
            peer.link.stream.receive_stream.close()
            await connection.write(*PRODUCE, b"", ignore)
    assert isinstance(caught.value.__cause__, trio.BrokenResourceError)


async def test_body_in_parts_is_the_same_request(config: ProducerConfig, peer: Any) -> None:
    async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
        await connection.write(*PRODUCE, [b"ab", memoryview(b"cd")], ignore)
        # header v2 ends with its tagged fields
        assert (await peer.link.expect()).body == b"\0abcd"


async def test_statistics_count_what_went_over(
    config: ProducerConfig, peer: Any, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
        await connection.write(*PRODUCE, b"abc", ignore)
        await connection.write(*PRODUCE, b"abc", ignore)
        await peer.link.answer((await peer.link.expect()).correlation_id, b"")
        await trio.sleep(3)
        found = connection.statistics()
        assert (found.address, found.in_flight, found.oldest_request_age_s) == ("broker:9092", 1, 3.0)
        assert (found.requests_total, found.responses_total) == (2, 1)
        assert (found.sent_bytes_total, found.received_bytes_total) == (2 * (4 + 10 + 4 + 1 + 3), 9)


async def test_nothing_is_left_when_the_block_is_left(config: ProducerConfig, peer: Any) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
        await connection.write(*PRODUCE, b"", ignore)
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living <= before
    assert str(connection.closed_reason) == "the connection to broker:9092 was closed by us"
