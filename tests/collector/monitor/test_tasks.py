"""The task tree: what it says about each kind of waiting, about cancellations, and how it folds."""

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from collector.monitor.tasks import NurseryNode, Stillness, TaskNode, all_tasks, capture_tree
from collector.monitor.tasks_page import Headline, render_json, render_text, span
from collector.monitor.waits import own_frame, peer_name

HEADLINE = Headline(
    pid=7,
    up_s=3720.0,
    at="2026-01-02 03:04:05 UTC",
    ready=True,
    word="ready",
    lag_s=0.0004,
    recent_highest_lag_s=0.012,
    max_lag_s=0.3,
    gc_share=0.001,
)


def _find(node: TaskNode, name: str) -> TaskNode:
    for found in _walk(node):
        if found.name == name:
            return found
    raise AssertionError(f"no task {name!r} in {[each.name for each in _walk(node)]}")


def _walk(node: TaskNode) -> list[TaskNode]:
    return [node, *(each for nursery in node.nurseries for child in nursery.children for each in _walk(child))]


@asynccontextmanager
async def _parked() -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_each_primitive_is_named(autojump_clock: MockClock) -> None:
    lock, limiter = trio.Lock(), trio.CapacityLimiter(1)
    limiter.acquire_on_behalf_of_nowait("somebody")
    send, receive = trio.open_memory_channel[int](0)
    full, _full = trio.open_memory_channel[int](0)

    async def hold_the_lock() -> None:
        async with lock:
            await trio.sleep_forever()

    async def with_child() -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(trio.sleep_forever, name="grandchild")
            inner.start_soon(trio.sleep_forever, name="its sibling")

    async with _parked() as nursery:
        nursery.start_soon(trio.sleep, 2.5, name="sleeper")
        nursery.start_soon(trio.sleep_forever, name="forever")
        nursery.start_soon(trio.Event().wait, name="event")
        nursery.start_soon(receive.receive, name="receiver")
        nursery.start_soon(full.send, 1, name="sender")
        nursery.start_soon(hold_the_lock, name="holder")
        nursery.start_soon(with_child, name="parent")
        nursery.start_soon(limiter.acquire_on_behalf_of, "me", name="limited")
        nursery.start_soon(trio.lowlevel.wait_task_rescheduled, lambda _: trio.lowlevel.Abort.SUCCEEDED, name="raw")
        nursery.start_soon(trio.lowlevel.ParkingLot().park, name="parked")
        await wait_all_tasks_blocked()
        nursery.start_soon(lock.acquire, name="locked out")
        await wait_all_tasks_blocked()
        tree = await capture_tree()
        expected = {
            "sleeper": "the clock, 2.500 s to go",
            "forever": "nothing but its cancellation",
            "event": "an event",
            "receiver": "an item from a channel",
            "sender": "room in a channel (0 of 0)",
            "parent": "its 2 child tasks",
            "locked out": "a lock, held by holder",
            "limited": "a lock",
            "raw": "someone to wake it",
            "parked": "someone to wake it",
        }
        assert {name: _find(tree, name).wait.text for name in expected} == expected
        assert _find(tree, "grandchild") in _find(tree, "parent").nurseries[0].children
        assert sum(each.wait.kind == "running" for each in _walk(tree)) == 1
    await send.aclose()


async def test_sockets_show_the_listener_and_truncate_who_came() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]

    async def flood(stream: trio.SocketStream) -> None:
        while True:
            await stream.send_all(bytes(1 << 20))

    async with (
        listener,
        await trio.open_tcp_stream("127.0.0.1", port),
        await listener.accept() as server,
        _parked() as nursery,
    ):
        nursery.start_soon(listener.accept, name="acceptor")
        nursery.start_soon(server.receive_some, name="accepted")
        nursery.start_soon(flood, server, name="writer")
        await wait_all_tasks_blocked(0.05)
        tree = await capture_tree()
    assert _find(tree, "acceptor").wait.text == f"a connection on 127.0.0.1:{port}"
    assert _find(tree, "accepted").wait.text == "bytes from 127.0.0.0/24"
    assert _find(tree, "writer").wait.text == "127.0.0.0/24 to read what we wrote"


async def test_a_connection_that_we_dialled_shows_its_peer_whole() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with listener, await trio.open_tcp_stream("127.0.0.1", port) as client, _parked() as nursery:
        nursery.start_soon(client.receive_some, name="dialled")
        await wait_all_tasks_blocked()
        tree = await capture_tree()
    assert _find(tree, "dialled").wait.text == f"bytes from 127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("address", "whole", "truncated"),
    [
        (("10.1.2.3", 80), "10.1.2.3:80", "10.1.2.0/24"),
        (("2001:db8:1:2::3", 80, 0, 0), "[2001:db8:1:2::3]:80", "2001:db8:1::/48"),
        (("::ffff:10.1.2.3", 80, 0, 0), "[::ffff:10.1.2.3]:80", "10.1.2.0/24"),
        (("fe80::1%eth0", 80, 0, 2), "[fe80::1]:80", "fe80::/48"),
        (("a name", 80), "a name:80", "?"),
        ("/run/socket", "a unix socket", "a unix socket"),
        (None, "?", "?"),
    ],
)
def test_peer_names(address: object, whole: str, truncated: str) -> None:
    assert peer_name(address, truncated=False) == whole
    assert peer_name(address, truncated=True) == truncated


async def test_a_thread_is_named_by_its_function() -> None:
    async with _parked() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, time.sleep, 0.05, name="threaded")
        await wait_all_tasks_blocked()
        assert _find(await capture_tree(), "threaded").wait.text == "a thread: sleep"


async def test_a_deadline_and_a_shielded_survivor_are_told(autojump_clock: MockClock) -> None:
    async def with_deadline() -> None:
        with trio.move_on_after(4):
            await trio.Event().wait()

    async def survivor() -> None:
        with trio.move_on_after(3, shield=True):
            await trio.Event().wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(with_deadline, name="hurried")
        async with trio.open_nursery() as doomed:
            doomed.start_soon(survivor, name="survivor")
            await wait_all_tasks_blocked()
            doomed.cancel_scope.cancel(reason="draining")
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
                tree = await capture_tree()
    hurried, survived = _find(tree, "hurried"), _find(tree, "survivor")
    assert hurried.deadline_s == 3
    assert hurried.cancelled is None
    assert survived.shielded
    assert survived.cancelled is not None
    assert survived.cancelled.startswith("“draining”, by ")
    assert " at 0x" not in survived.cancelled
    text = render_text(tree, HEADLINE)
    assert "1 task is cancelled and not ended" in text
    assert "survivor: waits for an event; cancelled: “draining”" in text
    assert "(behind a shield)" in text


async def test_what_has_not_moved_says_for_how_long(autojump_clock: MockClock) -> None:
    stillness = Stillness()

    async def restless() -> None:
        for _ in range(100):
            await trio.sleep(1)

    async with _parked() as nursery:
        nursery.start_soon(trio.sleep_forever, name="still")
        nursery.start_soon(restless, name="restless")
        await trio.sleep(0.5)
        assert await stillness.look() == len(list(all_tasks()))
        await trio.sleep(7)
        tree = await capture_tree(stillness)
        assert _find(tree, "still").still_s == 7
        assert _find(tree, "restless").still_s == 0


async def test_ten_thousand_alike_are_one_line_and_give_way_to_others(autojump_clock: MockClock) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with _parked() as nursery:
        for number in range(10_000):
            nursery.start_soon(trio.sleep_forever, name=f"connection {number}")
        await wait_all_tasks_blocked()
        nursery.start_soon(others, name="others")
        tree = await capture_tree()
        assert turns >= 50
        text = render_text(tree, HEADLINE)
        nursery.cancel_scope.cancel(reason="the test is over")
    assert re.search(r"connection \d+  × 10,000 — nothing but its cancellation", text)
    assert len(text.splitlines()) < 60
    assert len(render_text(tree, HEADLINE, fold=False).splitlines()) > 10_000


class _Shown:
    def __repr__(self) -> str:
        return "<Shown 3 of 4>"

    async def method(self) -> None:
        await trio.sleep_forever()


async def test_the_subject_is_shown_for_our_own_classes_only() -> None:
    async with _parked() as nursery:
        nursery.start_soon(_Shown().method, name="foreign")
        await wait_all_tasks_blocked()
        assert _find(await capture_tree(), "foreign").subject is None


async def test_the_subject_of_a_method_of_ours_is_its_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "__name__", "collector.made_up")
    monkeypatch.setattr(_Shown, "__module__", "collector.made_up")
    async with _parked() as nursery:
        nursery.start_soon(_Shown().method, name="ours")
        await wait_all_tasks_blocked()
        found = _find(await capture_tree(), "ours")
    assert found.subject == "<Shown 3 of 4>"
    assert found.place is not None
    assert re.fullmatch(r"collector/made_up\.py:\d+ _Shown\.method", found.place)


async def test_an_awaitable_object_does_not_end_the_chain() -> None:
    class Awaitable:
        def __await__(self):  # type: ignore[no-untyped-def]
            return self.run().__await__()

        async def run(self) -> None:
            await trio.Event().wait()

    async def outer() -> None:
        await Awaitable()

    async with _parked() as nursery:
        nursery.start_soon(outer, name="outer")
        await wait_all_tasks_blocked()
        found = _find(await capture_tree(), "outer")
    assert found.wait.text == "an event"
    assert [frame.rpartition(".")[2] for frame in found.frames] == ["outer", "run", "wait"]


def _node(name: str, **changes: object) -> TaskNode:
    from collector.monitor.waits import Wait

    values: dict[str, object] = {
        "name": name,
        "wait": Wait("event", "an event"),
        "place": None,
        "subject": None,
        "frames": (),
        "deadline_s": None,
        "cancelled": None,
        "shielded": False,
        "runnable": False,
        "still_s": None,
    }
    return TaskNode(**{**values, **changes})  # type: ignore[arg-type]


def _tree(*children: TaskNode) -> TaskNode:
    return _node(
        "root", nurseries=[NurseryNode(children=list(children), deadline_s=None, cancelled=False, closed=False)]
    )


def test_a_quiet_tree_says_that_nothing_stands_out() -> None:
    text = render_text(_tree(_node("a")), HEADLINE)
    assert text.startswith(
        "collector · pid 7 · up 1 h 2 min · 2026-01-02 03:04:05 UTC · ready\n2 tasks · loop lag 0.4 ms"
    )
    assert "nothing stands out" in text
    assert text.endswith("root — an event\n└─ a — an event\n")


def test_what_is_wrong_comes_first() -> None:
    from collector.monitor.waits import Wait

    headline = Headline(
        pid=7,
        up_s=1,
        at="now",
        ready=False,
        word="lagging",
        lag_s=0.4,
        recent_highest_lag_s=0.4,
        max_lag_s=0.3,
        gc_share=0.0,
    )
    tree = _tree(
        *(_node(f"runnable {number}", runnable=True) for number in range(101)),
        _node("late", deadline_s=-1.5, still_s=80.0, place="collector/run.py:1 run"),
        _node("slow", wait=Wait("slow peer", "10.0.0.0/24 to read what we wrote")),
        _node("locked", wait=Wait("lock", "a lock, held by x"), still_s=5.0),
    )
    lines = render_text(tree, headline).splitlines()
    attention = lines[lines.index("Look here first") + 1 : lines.index("What tasks wait for") - 1]
    assert attention == [
        "  ! not ready: lagging",
        "  ! the loop was late by 400.0 ms within the last minute; above 300.0 ms requests are shed",
        "  ! 101 tasks wait for their turn: the CPU is the bottleneck",
        "  ! 1 task is past a deadline that the loop could not deliver yet:",
        "      late: waits for an event, still for 1 min 20 s  @ collector/run.py:1 run",
        "  ! 1 task is writing to a peer that does not read:",
        "      slow: waits for 10.0.0.0/24 to read what we wrote",
        "  ! 1 task is waiting for a lock for more than a second:",
        "      locked: waits for a lock, held by x, still for 5 s",
    ]


def test_a_cancelled_parent_of_a_survivor_is_not_blamed() -> None:
    from collector.monitor.waits import Wait

    text = render_text(_tree(_node("parent", cancelled="“bye”", wait=Wait("children", "its child task"))), HEADLINE)
    assert "nothing stands out" in text


def test_json_has_the_whole_tree() -> None:
    document = render_json(_tree(_node("a", still_s=3.0)), HEADLINE)
    assert isinstance(document, dict)
    assert document["tasks"] == 2
    assert document["waits"] == {"event": 2}
    tree = document["tree"]
    assert isinstance(tree, dict)
    assert str(tree["nurseries"]).count("'name': 'a'") == 1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3.9, "3 s"), (200, "3 min 20 s"), (18720, "5 h 12 min"), (800000, "9 d 6 h")],
)
def test_spans(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_own_frame_of_trios_own_tasks_is_none() -> None:
    assert own_frame([]) is None
