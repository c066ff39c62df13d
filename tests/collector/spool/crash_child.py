"""Forks writers and kills them with SIGKILL at random moments; run by `test_crash`.

    crash_child.py DIRECTORY KILLS SEED

Each writer prints, to the one pipe: ``S value`` when a row was acknowledged as stored, ``M value`` before a row is
taken out as replayed, ``G value`` after that was committed. A line is one write of less than PIPE_BUF bytes: whole, or
not there. It forks after everything is imported, so that a writer starts in milliseconds.
"""

import os
import random
import select
import signal
import sys
import time

import trio

from collector.log import configure_logging
from collector.spool import open_spool
from collector.spool.base import Selection, Stored
from tests.collector.spool.rows import config_of, row

#: The writer's end of a pipe that tells when it begins to write.
STARTED: list[int] = []


def say(word: str, value: bytes | None) -> None:
    os.write(1, f"{word} {(value or b'').decode()}\n".encode())


async def submit_for_ever(spool, name: str) -> None:  # type: ignore[no-untyped-def]
    number = 0
    while True:
        new = [
            row(b"%s.%d" % (name.encode(), number + i), b"%d" % i, held=i == 3) for i in range(random.randrange(1, 8))
        ]
        number += len(new)
        receipt = spool.submit(new)
        await receipt.wait()
        for each, told in zip(new, receipt.outcomes, strict=True):
            assert told == Stored(), told
            while STARTED:
                os.write(STARTED.pop(), b".")
            say("S", each.record.value)


async def replay_for_ever(spool) -> None:  # type: ignore[no-untyped-def]
    while True:
        rows = await spool.take(Selection(rows=4, bytes=1 << 20))
        if rows:
            await spool.mark_attempted([stored.id for stored in rows])
            for stored in rows:
                say("M", stored.record.value)
            await spool.gone([stored.id for stored in rows], "replayed")
            for stored in rows:
                say("G", stored.record.value)
        await trio.sleep(0.002)


async def write(directory: str, name: str) -> None:
    async with open_spool(config_of(directory), node=f"n{name}") as spool, trio.open_nursery() as nursery:
        assert spool.statistics().state == "ok", spool.statistics().problem
        assert spool.statistics().difference == 0
        for task in range(3):
            nursery.start_soon(submit_for_ever, spool, f"{name}-{task}")
        nursery.start_soon(replay_for_ever, spool)


def main() -> None:
    directory, kills, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    configure_logging()
    chosen = random.Random(seed)
    for number in range(kills):
        writes, written = os.pipe()
        child = os.fork()
        if not child:
            STARTED.append(written)
            random.seed(seed * 1000 + number)
            trio.run(write, directory, str(number))
            os._exit(1)
        if chosen.random() < 0.5:
            time.sleep(chosen.uniform(0, 0.05))  # it may just be opening the file
        else:
            select.select([writes], [], [], 10.0)
            time.sleep(chosen.uniform(0, 0.05))
        os.close(writes)
        os.close(written)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            sys.exit(f"writer {number} ended by itself")


if __name__ == "__main__":
    main()
