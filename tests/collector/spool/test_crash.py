"""kill -9 at random moments, two hundred times: every acknowledged row is there afterwards, and ledger B balances.

It proves that there is no moment in a commit, a checkpoint or an opening at which a dying process takes acknowledged
rows along. It proves nothing about fsync, since the kernel's page cache outlives the process: see `test_fsync`.
"""

import os
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

from collector.spool import open_spool
from tests.collector.spool.rows import config_of, values_of

KILLS = 220
CHILD = Path(__file__).with_name("crash_child.py")
ROOT = CHILD.parents[3]


async def test_every_acknowledged_row_is_found_after_two_hundred_kills(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    ran = subprocess.run(  # noqa: ASYNC221  # nothing else runs meanwhile
        [sys.executable, str(CHILD), str(tmp_path), str(KILLS), str(seed)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert ran.returncode == 0, f"seed {seed}"
    told: dict[str, set[str]] = {"S": set(), "M": set(), "G": set()}
    for line in ran.stdout.decode().splitlines():
        word, value = line.split(" ", 1)
        told[word].add(value)
    async with open_spool(config_of(tmp_path), node="after") as spool:
        statistics = spool.statistics()
        found = Counter(value.decode() for value in await values_of(spool) if value is not None)
    assert len(told["S"]) > KILLS, "the writers hardly wrote"
    assert len(told["G"]) > KILLS / 4, "hardly anything was replayed"
    assert not told["S"] - told["M"] - found.keys(), f"lost, seed {seed}"
    assert not told["G"] & found.keys(), f"back from the dead, seed {seed}"
    assert max(found.values(), default=1) == 1, f"twice in the file, seed {seed}"
    assert (statistics.difference, statistics.lost_total, statistics.state) == (0, 0, "ok")
    with closing(sqlite3.connect(statistics.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
