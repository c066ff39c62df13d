"""The loop-lag probe: on virtual time, where a blockage is a jump of the clock that the probe did not ask for."""

import pytest
import trio
from trio.testing import MockClock

from collector.monitor.lag import HOLD_S, LoopLag


async def _settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_lag_without_a_probe_is_zero() -> None:
    await trio.lowlevel.checkpoint()
    assert LoopLag().lag_s == 0.0


async def test_lag_on_an_idle_loop_is_zero(autojump_clock: MockClock) -> None:
    lag = LoopLag()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lag.run)
        await trio.sleep(1)
        assert lag.lag_s == 0.0
        assert lag.histogram.total == 19
        nursery.cancel_scope.cancel()


async def test_lag_is_seen_before_the_probe_has_run_again(mock_clock: MockClock) -> None:
    lag = LoopLag(interval_s=0.05)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lag.run)
        await _settle()
        mock_clock.jump(0.45)
        # No checkpoint yet: the probe has had no chance.
        assert lag.lag_s == pytest.approx(0.4)
        assert lag.overdue_s == pytest.approx(0.4)
        nursery.cancel_scope.cancel()


async def test_lag_once_measured_stands_for_a_while_and_the_turn_does_not(mock_clock: MockClock) -> None:
    lag = LoopLag(interval_s=0.05)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lag.run)
        await _settle()
        mock_clock.jump(0.45)
        await _settle()
        mock_clock.jump(0.05)
        await _settle()
        assert lag.lag_s == pytest.approx(0.4)
        assert lag.overdue_s == 0.0
        for _ in range(5):
            mock_clock.jump(0.05)
            await _settle()
        assert lag.lag_s == pytest.approx(0.0)
        assert lag.highest_s == lag.recent_highest_s == pytest.approx(0.4)
        nursery.cancel_scope.cancel()


async def test_recent_highest_lag_forgets_after_a_minute_and_the_highest_does_not(mock_clock: MockClock) -> None:
    lag = LoopLag(interval_s=5.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lag.run)
        await _settle()
        mock_clock.jump(7.0)
        await _settle()
        for _ in range(14):
            mock_clock.jump(5.0)
            await _settle()
        assert lag.recent_highest_s == pytest.approx(0.0)
        assert lag.highest_s == pytest.approx(2.0)
        nursery.cancel_scope.cancel()


async def test_the_highest_lag_since_the_last_sample_is_taken_once(mock_clock: MockClock) -> None:
    lag = LoopLag(interval_s=0.05)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lag.run)
        await _settle()
        mock_clock.jump(0.15)
        await _settle()
        assert lag.take_highest_s() == pytest.approx(0.1)
        mock_clock.jump(HOLD_S)
        await _settle()
        mock_clock.jump(0.05)
        await _settle()
        assert lag.take_highest_s() == pytest.approx(0.2)
        nursery.cancel_scope.cancel()


async def test_lag_of_an_ended_probe_is_zero(mock_clock: MockClock) -> None:
    lag = LoopLag()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lag.run)
        await _settle()
        nursery.cancel_scope.cancel()
    mock_clock.jump(10)
    assert lag.lag_s == 0.0
