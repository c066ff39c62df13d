"""One call per dialect: a body in, what it means out."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import pytest

from collector.config import AppKeys, KeysConfig, LimitsConfig
from collector.dialects import Dialect, DialectRequest, Event, Parsed, make_dialects
from collector.keys import ConfiguredKeys
from collector.times import to_ms

RECEIVED_AT_MS = 1_800_000_000_123

Call: TypeAlias = Callable[..., Parsed]


def caller(name: str) -> Call:
    keys = KeysConfig(apps={"shop": AppKeys(write_keys=("w",), app_ids=("11",))})

    def call(
        path: str,
        body: object,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        limits: Mapping[str, int] | None = None,
        open_to_all: bool = False,
        **request: Any,
    ) -> Parsed:
        dialect: Dialect = make_dialects(LimitsConfig(**(limits or {})))[name]
        route = next(route for route in dialect.routes if route.path == path)
        return dialect.parse(
            route,
            DialectRequest(
                method="POST",
                path=path,
                query=query or {},
                headers=headers or {},
                body=body if isinstance(body, bytes) else json.dumps(body).encode(),
                received_at_ms=RECEIVED_AT_MS,
                request_id="request-1",
                **request,
            ),
            ConfiguredKeys.from_config(replace(keys, open=open_to_all)),
        )

    return call


@pytest.fixture
def heap() -> Call:
    """``heap(path, body, …)``: body as bytes, or anything that json.dumps takes. The only app id is "11"."""
    return caller("heap")


@pytest.fixture
def segment() -> Call:
    """``segment(path, body, …)``, as `heap`. The only write key is "w"."""
    return caller("segment")


def ms_of(event: Event) -> int | None:
    return None if event.timestamp is None else to_ms(event.timestamp)
