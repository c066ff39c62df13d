"""Each program runs to its end, as a user calls it: ours alone, on a mock broker, for a second. Nothing is measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

SHORT = ("--mock", "--quick", "--seconds", "1")


@pytest.mark.parametrize(
    ("program", "arguments", "measured"),
    [
        ("http", (*SHORT, "--rows", "O1"), ["ours", "ours, all of it off"]),
        ("ws", (*SHORT, "--only", "stock"), ["ours on stock Hypercorn"]),
        (
            "memory",
            ("--mock", "--quick", "--rows", "M1,M2", "--connections", "50", "--tries", "100"),
            ["50 idle keep-alive connections", "50 idle websockets", "resident memory"],
        ),
    ],
    ids=["http", "ws", "memory"],
)
def test_program_runs_to_its_end(program: str, arguments: tuple[str, ...], measured: list[str], tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    argv = [sys.executable, "-m", f"tests.bench.{program}", *arguments, "--json", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(file.read_text())
    assert report["failures"] == []
    runs = {each["name"]: each["runs"] for row in report["rows"] for each in row["measured"]}
    assert set(measured) <= set(runs)
    assert all(len(each) == 1 for each in runs.values())
    assert f"{report['title']}\n" in done.stdout
