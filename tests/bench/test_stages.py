"""The parts of the stages' benchmark that need neither a broker nor a server."""

import json
from collections.abc import Callable
from pathlib import Path
from time import process_time
from types import CodeType

import pytest

from collector.dialects.codec import codec_of
from collector.dialects.heap import Heap
from collector.ingest.record import encode_events
from collector.web.lane.parser import RequestParser
from kafka_client.sending.intake import Intake
from kafka_client.wire.record_batch import encode_batch
from tests.bench.running import RunFailed
from tests.bench.stages import rooms
from tests.bench.stages.__main__ import SAMPLES, WHOLE, figures_of
from tests.bench.stages.rooms import STAGES, stage_of_stack
from tests.bench.stages.sampled import Switch


def code_of(function: Callable[..., object]) -> CodeType:
    return function.__code__  # type: ignore[attr-defined, no-any-return]  # a function of Python has it


@pytest.mark.parametrize(
    ("innermost", "stage"),
    [
        (RequestParser.feed, rooms.READ),
        (Heap.parse, rooms.PARSE),
        (codec_of, rooms.PARSE),
        (Heap._event, rooms.VALIDATE),
        (encode_events, rooms.ENCODE),
        (encode_batch, rooms.ENCODE),
        (Intake.encoded, rooms.ENQUEUE),
        (json.loads, rooms.READ),
    ],
)
def test_stack_belongs_to_the_innermost_function_with_a_stage(innermost: Callable[..., object], stage: str) -> None:
    assert stage_of_stack([code_of(innermost), code_of(RequestParser.feed)]) == stage


def test_stack_without_any_is_elsewhere() -> None:
    assert stage_of_stack([code_of(json.loads)]) == stage_of_stack([]) == rooms.REST


def test_stages_share_out_the_whole() -> None:
    figures = figures_of({rooms.PARSE: 30, rooms.ENCODE: 10}, 8.0)
    assert (figures[rooms.PARSE], figures[rooms.ENCODE], figures[rooms.READ]) == (6.0, 2.0, 0.0)
    assert (sum(figures[stage] for stage in STAGES), figures[WHOLE], figures[SAMPLES]) == (8.0, 8.0, 40)
    with pytest.raises(RunFailed, match="no sample"):
        figures_of({}, 8.0)


def test_samples_are_taken_between_two_turns(tmp_path: Path) -> None:
    file = tmp_path / "samples.json"
    switch = Switch(file)
    for _ in range(2):
        switch.turn(0, None)
        begin = process_time()
        while process_time() < begin + 0.3:
            sum(range(1000))
        switch.turn(0, None)
        samples = json.loads(file.read_text())
        assert set(samples) <= set(STAGES)
        assert 10 <= sum(samples.values()) < 400  # the kernel's tick is 10 ms at most, 1 ms at least
