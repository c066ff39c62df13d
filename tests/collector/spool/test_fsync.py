"""Between receipt and answer the log is written and synchronised: what the kernel was asked for, as strace saw it."""

import os
import subprocess
import sys
from pathlib import Path

from tests.collector.spool.traced import calls_of

CHILD = Path(__file__).with_name("fsync_child.py")
ROOT = CHILD.parents[3]

Call = tuple[str, str, str, int]


def calls_until_the_answer(spool: Path, trace: Path) -> tuple[list[Call], int, int]:
    """The calls of one event's storing; where it was received, where it was answered."""
    strace = ["strace", "-f", "-y", "-e", "trace=fdatasync,fsync,pwrite64,write", "-o", trace]
    ran = subprocess.run(
        [*strace, sys.executable, CHILD, spool],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, f"strace must be installed and allowed to trace (ptrace): {ran.stderr[-2000:]}"
    assert ran.stdout == "received\nanswered\n"
    calls = calls_of(trace.read_text())
    received, answered = [index for index, call in enumerate(calls) if call[0] == "write" and "ed\\n" in call[2]]
    return calls, received, answered


def test_the_log_is_synchronised_between_receipt_and_answer(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    calls, received, answered = calls_until_the_answer(spool, tmp_path / "trace")
    between = [(call, path.removeprefix(f"{spool}/"), result) for call, path, _, result in calls[received:answered]]
    written = [index for index, (call, path, _) in enumerate(between) if (call, path) == ("pwrite64", "n.sqlite3-wal")]
    synchronised = [
        index
        for index, (call, path, result) in enumerate(between)
        if call in ("fdatasync", "fsync") and path == "n.sqlite3-wal" and result == 0
    ]
    assert written, between
    assert synchronised, between
    assert synchronised[-1] > written[-1], between


def test_a_new_spool_is_not_gone_after_a_power_cut_because_its_directories_are(tmp_path: Path) -> None:
    spool = tmp_path / "new" / "deep" / "spool"
    calls, _, answered = calls_until_the_answer(spool, tmp_path / "trace")
    synchronised = {path for call, path, _, result in calls[:answered] if call in ("fsync", "fdatasync") and not result}
    assert synchronised >= {str(made) for made in (tmp_path, *list(spool.parents)[:2], spool)}
