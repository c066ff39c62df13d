"""The in-memory connection behaves as a socket does."""

import pytest
import trio
import trio.testing

from kafka_client.testing.link import MemoryStream, open_link


async def test_streams_pass_trios_own_checks() -> None:
    async def make() -> tuple[MemoryStream, MemoryStream]:
        await trio.lowlevel.checkpoint()
        return open_link(65536)

    async def make_clogged() -> tuple[MemoryStream, MemoryStream]:
        ours, theirs = open_link(1024)
        await ours.send_all(bytes(1024))
        await theirs.send_all(bytes(1024))
        return ours, theirs

    await trio.testing.check_half_closeable_stream(make, make_clogged)


async def test_sender_blocks_until_the_peer_reads(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = open_link(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, b"x" * 25)
        await trio.testing.wait_all_tasks_blocked()
        assert repr(ours) == "<MemoryStream open in=0 out=10>"
        assert [len(await theirs.receive_some()) for _ in range(3)] == [10, 10, 5]


async def test_reset_breaks_both_ends() -> None:
    ours, theirs = open_link(10)
    await ours.send_all(b"lost")
    theirs.reset()
    for stream in (ours, theirs):
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")


async def test_closed_end_still_delivers() -> None:
    ours, theirs = open_link(10)
    await ours.send_all(b"last words")
    await ours.aclose()
    assert await theirs.receive_some() == b"last words"
    assert await theirs.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await theirs.send_all(b"x")
