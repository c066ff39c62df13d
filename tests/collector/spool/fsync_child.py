"""Stores one event; run by `test_fsync` under strace, which sees the two words it writes around it."""

import os
import sys

import trio

from collector.spool import open_spool
from collector.spool.base import Stored
from tests.collector.spool.rows import config_of, row


async def main(directory: str) -> None:
    async with open_spool(config_of(directory), node="n") as spool:
        os.write(1, b"received\n")
        receipt = spool.submit([row(b"the event")])
        await receipt.wait()
        assert receipt.outcomes == [Stored()], receipt.outcomes
        os.write(1, b"answered\n")


trio.run(main, sys.argv[1])
