"""Rows and configurations that the tests of this directory share."""

from collections.abc import Sequence
from pathlib import Path

from collector.config import Config, SpoolConfig
from collector.spool import DiskSpool
from collector.spool.base import Selection, SpoolRow, StoredRow
from kafka_client.outcome import Record
from kafka_client.wire.murmur2 import murmur2


def config_of(path: str | Path, **settings: object) -> Config:
    return Config(spool=SpoolConfig(path=str(path), **settings))  # type: ignore[arg-type]


def row(value: bytes = b"{}", key: bytes | None = b"k", *, held: bool = False, app: str = "app") -> SpoolRow:
    key_hash = None if key is None else murmur2(key) & 0x7FFFFFFF
    return SpoolRow(record=Record("events", value, key), app=app, key_hash=key_hash, held=held)


async def take_all(spool: DiskSpool, rows: int = 100_000) -> Sequence[StoredRow]:
    return await spool.take(Selection(rows=rows, bytes=1 << 30))


async def values_of(spool: DiskSpool) -> list[bytes | None]:
    return [stored.record.value for stored in await take_all(spool)]
