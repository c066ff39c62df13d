"""Requests against the fake cluster and a spool in memory: what the tests of this directory share."""

from collections import Counter
from dataclasses import replace

import msgspec
import trio

from collector.config import Config, SpoolConfig
from collector.devtools.fixtures import default_config
from kafka_client.wire.murmur2 import partition_for_key

PARTITIONS = 4


def with_spool(**spool) -> Config:
    return replace(default_config(), spool=SpoolConfig(path=":memory:", **spool))


def key_in(partition: int, number: int = 0) -> str:
    """A user whose events go to this partition of four."""
    found = [f"u{n}" for n in range(200) if partition_for_key(f"u{n}".encode(), PARTITIONS) == partition]
    return found[number]


class Clients:
    """Sends events, and remembers what they were told, and when."""

    def __init__(self, app) -> None:
        self.app = app
        self.answers: list[tuple[float, float, int]] = []
        self.statuses: Counter[int] = Counter()

    async def post(self, *names: str, user: str | None = None, timeout_ms: int | None = None):
        events = [{"type": "track", "event": name, "messageId": name, "userId": user or name} for name in names]
        return await self.post_events(events, timeout_ms)

    async def post_events(self, events, timeout_ms=None):
        headers = {} if timeout_ms is None else {"x-collector-timeout-ms": str(timeout_ms)}
        began = trio.current_time()
        answer = await self.app.http.post("/v1/batch", json={"writeKey": "k", "batch": events}, headers=headers)
        self.answers.append((began, trio.current_time() - began, answer.status_code))
        self.statuses[answer.status_code] += 1
        return answer

    async def warm(self) -> None:  # noqa: ASYNC910  # posts are
        """One event to each partition."""
        for partition in range(PARTITIONS):
            assert (await self.post(f"warm-{partition}", user=key_in(partition))).status_code == 200


def ids(broker, topic: str = "events") -> list[str]:
    """The ids in the log."""
    return [msgspec.json.decode(value)["id"] for value in broker.values(topic)]


async def until_empty(app, within_s: float = 30.0) -> None:
    with trio.fail_after(within_s):
        await trio.lowlevel.checkpoint()
        while app.spool.statistics().rows:  # noqa: ASYNC110  # it has no event
            await trio.sleep(0.02)


def ledgers(app) -> None:
    """Both balance."""
    assert (app.ledger.difference, app.spool.statistics().difference) == (0, 0)


def copies(broker, name: str) -> list[bool]:
    """Each copy of this event in the log: whether it says that it may not be the only one."""
    found = [record for record in broker.records("events") if msgspec.json.decode(record.value)["id"] == name]
    return [("maybe-duplicate", b"1") in list(record.headers) for record in found]
