"""The parts of the Kafka benchmark that need neither a broker nor another client."""

import json
import sys
from pathlib import Path
from time import process_time

import pytest

from tests.bench.kafka.__main__ import main
from tests.bench.kafka.meter import Meter
from tests.bench.kafka.rates import GROUPS, K1, contenders_of
from tests.bench.kafka.sampling import Sampler, as_table, stage_of
from tests.bench.kafka.spec import RECORD_BYTES, numbered_payload, payloads


def test_payloads_are_of_one_size_and_different() -> None:
    values = payloads()
    assert {len(value) for value in values} == {RECORD_BYTES}
    assert len(set(values)) == len(values)
    assert payloads() == values


def test_numbered_payloads_are_of_the_same_size() -> None:
    assert len(numbered_payload(0)) == len(numbered_payload(199_999)) == RECORD_BYTES


def test_meter_counts_only_its_window(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    monkeypatch.setattr("tests.bench.kafka.meter.perf_counter", lambda: now)
    meter = Meter(warmup_s=1.0, measure_s=2.0)
    meter.records, meter.latencies[:] = 50, type(meter.latencies)("d", [9.0])
    assert not meter.over()
    now = 101.5
    assert not meter.over()  # the window begins with the first look after the warm-up, wherever that is
    meter.records += 300
    meter.latencies.extend([0.001, 0.003])
    now = 103.4
    assert not meter.over()
    now = 104.5
    assert meter.over()
    meter.records += 1000
    assert meter.over()
    figures = meter.figures()
    assert (figures["records"], figures["wall_s"], figures["rate"]) == (300, 3.0, 100.0)
    assert (figures["p50_ms"], figures["p99_ms"]) == (1.0, 3.0)
    assert capsys.readouterr().out == '{"event": "begin"}\n{"event": "end"}\n'


def test_contenders_of_a_group_have_names_of_their_own() -> None:
    for group in GROUPS:
        contenders = {each for part in group.parts for each in map(id, (*part.contenders, *part.needs))}
        names = {each.name for part in group.parts for each in (*part.contenders, *part.needs)}
        assert len(names) == len(contenders)


def test_contenders_of_an_unknown_row_are_none() -> None:
    assert contenders_of("K1") == list(K1)
    assert contenders_of("K9") == []


def test_command_refuses_an_unknown_row(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--rows", "K1,K9"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "'K9' is not one of K1, K2" in capsys.readouterr().err


def test_help_says_how_the_figures_are_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert "How the figures are made:" in capsys.readouterr().out


def test_a_sample_counts_for_the_innermost_room_that_has_a_name() -> None:
    here, stdlib, socket = "/x/tests/bench/kafka/ours.py", "/usr/lib/python3.11/enum.py", "/v/trio/_socket.py"
    intake, connection = "/x/kafka_client/sending/intake.py", "/x/kafka_client/network/connection.py"
    assert stage_of([stdlib, intake, here]) == stage_of([intake]) == "queueing"
    assert stage_of([socket, connection, "/v/trio/_core/_run.py"]).startswith("sockets")
    assert stage_of(["/v/trio/_core/_run.py", connection]).startswith("Trio")
    assert stage_of([here, intake]).startswith("the caller")
    assert stage_of([stdlib]) == stage_of([]) == "elsewhere"


def test_samples_are_taken_of_cpu_time_while_enabled(tmp_path: Path) -> None:
    sampler = Sampler()
    sampler.enable()
    begin = process_time()
    while process_time() < begin + 0.3:
        sum(range(1000))
    sampler.disable()
    file = tmp_path / "samples"
    sampler.dump_stats(str(file))
    assert sum(json.loads(file.read_text()).values()) >= 10  # the kernel's tick is 10 ms at most


def test_table_of_stages_adds_up_and_leaves_empty_ones_out() -> None:
    table = as_table({"K1": ({"queueing": 30, "compression": 10}, 4.0), "K2": ({"queueing": 10}, 8.0)})
    assert "| queueing | 3.00 (75%) | 8.00 (100%) |" in table
    assert "| compression | 1.00 (25%) | 0.00 (0%) |" in table
    assert "| together | 4.00 | 8.00 |" in table
    assert "elsewhere" not in table
