import json
from math import isnan

import pytest

from tests.bench.figures import Bound, Spread, at_least, at_most, below, judge, percentile, ratios, spread_of
from tests.bench.report import Check, Column, Measured, Report, Row, as_json, as_markdown
from tests.bench.scores import Scores, failed_note


def test_spread_is_median_and_range() -> None:
    spread = spread_of([3.0, 1.0, 10.0])
    assert spread == Spread(median=3.0, low=1.0, high=10.0, runs=3)


def test_spread_of_an_even_number_of_runs_is_between_the_middle_two() -> None:
    assert spread_of([1.0, 2.0, 4.0, 9.0]).median == 3.0


def test_spread_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no run"):
        spread_of([])


def test_ratio_is_formed_within_a_round() -> None:
    # The machine was three times slower in the second round, for both.
    assert ratios([300.0, 100.0], [150.0, 50.0]) == [2.0, 2.0]


def test_ratio_leaves_out_a_round_that_one_side_did_not_finish() -> None:
    assert ratios([300.0, 100.0], [150.0]) == [2.0]
    assert ratios([300.0, 100.0], [0.0, 50.0]) == [2.0]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0)])
def test_percentile_is_a_measured_value(share: float, expected: float) -> None:
    assert percentile([float(number) for number in range(1, 101)], share) == expected


def test_percentile_of_nothing_is_nan() -> None:
    assert isnan(percentile([], 0.5))


@pytest.mark.parametrize(
    ("bound", "figure", "verdict"),
    [
        (at_least(2), 2.0, "met"),
        (at_least(2), 1.99, "missed"),
        (at_most(2), 2.0, "met"),
        (at_most(2), 2.01, "missed"),
        (below(2), 2.0, "missed"),
        (below(2), 1.99, "met"),
        (at_least(2), float("nan"), "not measured"),
    ],
)
def test_bound_judges_the_median(bound: Bound, figure: float, verdict: str) -> None:
    assert judge(Spread(median=figure, low=0.0, high=9.0, runs=3), bound) == verdict


def test_no_figure_is_not_a_met_bound() -> None:
    assert judge(None, at_least(1)) == "not measured"


def test_no_bound_has_no_verdict() -> None:
    assert judge(spread_of([1.0]), None) is None


@pytest.fixture
def measured() -> list[Measured]:
    """Two clients, two rounds; the second round was slower for both."""
    return [
        Measured(name="ours", settings="fast", runs=[_run(400.0, 2.0), _run(100.0, 8.0)]),
        Measured(name="theirs", settings="slow", runs=[_run(200.0, 5.0), _run(40.0, 24.0)]),
    ]


def _run(rate: float, cpu_us: float) -> dict[str, float]:
    return {"rate": rate, "cpu_us": cpu_us, "cpu_share": 0.95, "rest_share": 0.3}


def test_scores_give_a_rate_by_rounds_and_by_cpu_time(measured: list[Measured]) -> None:
    check = Scores(measured).ratio("ours : theirs", "ours", "theirs", must=at_least(2), stretch=at_least(3))
    assert check.figure == Spread(median=2.25, low=2.0, high=2.5, runs=2)
    assert check.by_cpu == Spread(median=2.75, low=2.5, high=3.0, runs=2)
    assert check.verdicts == ("met", "missed")


def test_scores_without_the_other_side_measure_nothing(measured: list[Measured]) -> None:
    check = Scores(measured[:1]).ratio("ours : theirs", "ours", "theirs", must=at_least(2))
    assert check.verdicts == ("not measured", None)


def test_cost_is_in_percent_of_cpu_time(measured: list[Measured]) -> None:
    check = Scores(measured).cost("theirs over ours", "theirs", "ours", below(15))
    assert check.figure == Spread(median=175.0, low=150.0, high=200.0, runs=2)


def test_scores_name_who_was_not_saturated(measured: list[Measured]) -> None:
    assert Scores(measured).unsaturated() is None
    measured[1].runs[:] = [{"cpu_share": 0.5}]
    assert (Scores(measured).unsaturated() or "").startswith("Not saturated: theirs. ")


def test_requests_that_failed_are_named(measured: list[Measured]) -> None:
    assert failed_note(measured) is None
    measured[1].runs.append({"failed": 3.0})
    assert failed_note(measured) == "Refused or lost, and in no rate: theirs: 3."


def _report(measured: list[Measured], checks: list[Check]) -> Report:
    row = Row(
        name="K1",
        title="a rate",
        columns=(Column(key="rate", title="records/s", digits=0), Column(key="cpu_us", title="CPU-µs")),
        measured=measured,
        checks=checks,
        notes=("As it was.",),
    )
    return Report(title="Producers", about={"runs": "2"}, rows=[row])


def test_markdown_shows_medians_ranges_and_marks_what_was_missed(measured: list[Measured]) -> None:
    check = Scores(measured).ratio("ours : theirs", "ours", "theirs", must=at_least(2), stretch=at_least(3))
    assert as_markdown(_report(measured, [check])) == (
        "# Producers\n\n- runs: 2\n\n## K1: a rate\n\n"
        "|  | records/s | CPU-µs | saturated |\n"
        "| --- | --- | --- | --- |\n"
        "| ours | 250 (100–400) | 5.0 (2.0–8.0) | **producer** (producer 95%, broker 30%) |\n"
        "| theirs | 120 (40–200) | 14.5 (5.0–24.0) | **producer** (producer 95%, broker 30%) |\n"
        "\n"
        "| ours against | figure | by CPU time | must | stretch |\n"
        "| --- | --- | --- | --- | --- |\n"
        "| ours : theirs | 2.25 (2.00–2.50) × | 2.75 (2.50–3.00) × | ≥ 2 × met | ≥ 3 × **missed** |\n"
        "\nAs it was.\n"
        "\nSettings:\n\n- ours: fast\n- theirs: slow\n"
    )


@pytest.mark.parametrize(
    ("producer", "broker", "expected"),
    [(0.95, 0.95, "**producer**"), (0.5, 0.95, "**broker**"), (0.5, 0.5, "neither")],
)
def test_markdown_names_the_saturated_side(producer: float, broker: float, expected: str) -> None:
    run = {"rate": 1.0, "cpu_us": 1.0, "cpu_share": producer, "rest_share": broker}
    text = as_markdown(_report([Measured(name="ours", runs=[run])], []))
    assert f"| {expected} (" in text


def test_json_has_every_run_and_no_nan(measured: list[Measured]) -> None:
    measured[0].runs.append({"rate": float("nan")})
    check = Scores(measured).ratio("ours : theirs", "ours", "theirs", must=at_least(2))
    (row,) = json.loads(json.dumps(as_json(_report(measured, [check])), allow_nan=False))["rows"]
    assert [run["rate"] for run in row["measured"][0]["runs"]] == [400.0, 100.0, None]
    assert row["checks"] == [
        {
            "what": "ours : theirs",
            "unit": "×",
            "figure": {"median": 2.25, "low": 2.0, "high": 2.5, "runs": 2},
            "by_cpu": {"median": 2.75, "low": 2.5, "high": 3.0, "runs": 2},
            "must": "≥ 2 ×",
            "must_verdict": "met",
            "stretch": None,
            "stretch_verdict": None,
        }
    ]
