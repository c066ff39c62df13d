"""Between receipt and answer the log is written and synchronised: what the kernel was asked for, as strace saw it."""

import os
import subprocess
import sys
from pathlib import Path

from tests.collector.spool.traced import calls_of

CHILD = Path(__file__).with_name("fsync_child.py")
ROOT = CHILD.parents[3]


def test_the_log_is_synchronised_between_receipt_and_answer(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    spool = tmp_path / "spool"
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
    words = [index for index, call in enumerate(calls) if call[0] == "write" and "ed\\n" in call[2]]
    received, answered = words
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
