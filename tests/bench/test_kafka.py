"""The parts of the Kafka benchmark that need neither a broker nor another client."""

import sys

import pytest

from tests.bench.kafka.__main__ import main
from tests.bench.kafka.meter import Meter
from tests.bench.kafka.rates import GROUPS, K1, contenders_of
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
