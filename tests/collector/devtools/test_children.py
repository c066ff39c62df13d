"""Child processes on real time: they end with their block, with their parent, and with nothing else."""

import os
import signal
import sys
from pathlib import Path

import pytest
import trio

from collector.devtools.children import Child, ChildFailed, open_child

SLEEPS = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)")
DEAF = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
)


def gone(pid: int) -> bool:
    """Whether no process of this number is left, not even one that waits for being waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def wait_line(child: Child, line: str) -> None:
    with trio.fail_after(10):
        await trio.lowlevel.checkpoint()
        while True:
            if line in child.tail:
                return
            await trio.sleep(0.01)


async def test_child_ends_with_its_block() -> None:
    async with open_child(SLEEPS, name="sleeper") as child:
        await wait_line(child, "up")
        assert repr(child) == f"<Child sleeper pid {child.pid} running>"
    assert gone(child.pid)
    assert child.process.returncode == -signal.SIGTERM


async def test_child_ends_when_its_block_is_cancelled() -> None:
    with trio.move_on_after(0.3):
        async with open_child(SLEEPS, name="sleeper") as child:
            await trio.sleep_forever()
    assert gone(child.pid)


async def test_deaf_child_is_killed_after_the_grace() -> None:
    async with open_child(DEAF, name="deaf", grace_s=0.2) as child:
        await wait_line(child, "up")
        started = trio.current_time()
    assert child.process.returncode == -signal.SIGKILL
    assert 0.2 <= trio.current_time() - started < 2


async def test_paused_child_ends_all_the_same() -> None:
    async with open_child(SLEEPS, name="sleeper") as child:
        await wait_line(child, "up")
        child.pause()
        started = trio.current_time()
    assert trio.current_time() - started < 2
    assert gone(child.pid)


async def test_error_of_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(ValueError, match="mine"):
        async with open_child(SLEEPS, name="sleeper"):
            raise ValueError("mine")


async def test_output_is_read_to_the_end_and_logged(tmp_path: Path) -> None:
    lines: list[str] = []
    talks = (sys.executable, "-c", "import sys\nfor n in range(5000): print('line', n)\nprint('x', file=sys.stderr)")
    async with open_child(talks, name="talker", on_line=lines.append, log=tmp_path / "log") as child:
        assert await child.wait_ended() == 0
        await wait_line(child, "x")
    assert lines[:2] == ["line 0", "line 1"]
    assert len(lines) == 5001
    assert (tmp_path / "log").read_text().count("\n") == 5001
    assert len(child.tail) < 5000


async def test_program_that_is_not_there_is_seen_in_the_output() -> None:
    async with open_child(["/nonexistent/program"], name="ghost") as child:
        assert await child.wait_ended() != 0
    failure = child.failure("has ended")
    assert isinstance(failure, ChildFailed)
    assert str(failure) == "ghost has ended"


async def test_child_has_a_session_of_its_own() -> None:
    async with open_child(SLEEPS, name="sleeper") as child:
        await wait_line(child, "up")
        assert os.getsid(child.pid) == child.pid != os.getsid(0)


async def test_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = f"""
import trio
from collector.devtools.children import open_child
async def main():
    async with open_child({SLEEPS!r}, name="grandchild") as child:
        print("grandchild", child.pid, flush=True)
        await trio.sleep_forever()
trio.run(main)
"""
    async with open_child([sys.executable, "-c", parent], name="parent") as child:
        with trio.fail_after(10):
            await trio.lowlevel.checkpoint()
            while not child.tail:  # noqa: ASYNC110  # a line of another process is no event of ours
                await trio.sleep(0.01)
        pid = int(child.tail[0].split()[1])
        assert not gone(pid)
        child.process.send_signal(signal.SIGKILL)
        await child.wait_ended()
        with trio.fail_after(10):
            await trio.lowlevel.checkpoint()
            # It is somebody else's to wait for now, and may stay as a zombie where nobody does.
            while "(zombie)" not in _status(pid):  # noqa: ASYNC110  # as above
                await trio.sleep(0.01)


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return "(zombie)"
