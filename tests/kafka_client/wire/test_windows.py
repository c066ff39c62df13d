"""Which versions of which messages we speak, against the schemas of the newest Kafka that we know (4.3)."""

from types import ModuleType
from typing import Any

from kafka_client.wire import fetch, metadata
from kafka_client.wire.frames import API_NAMES, FIRST_FLEXIBLE

NEVER = 1 << 15


def test_every_message_has_its_name_key_and_first_flexible_version(
    codec: Any, messages: tuple[ModuleType, ...]
) -> None:
    assert {message.API_KEY for message in messages} == set(API_NAMES) == set(FIRST_FLEXIBLE)
    for message in messages:
        for kind in ("Request", "Response"):
            schema = codec(API_NAMES[message.API_KEY], kind, message.MAX_VERSION).schema
            assert schema["apiKey"] == message.API_KEY
            first = schema["flexibleVersions"].removesuffix("+")
            assert FIRST_FLEXIBLE[message.API_KEY] == (NEVER if first == "none" else int(first))


def test_newest_stable_version_of_every_message_is_spoken(codec: Any, messages: tuple[ModuleType, ...]) -> None:
    for message in messages:
        schema = codec(API_NAMES[message.API_KEY], "Request", 0).schema
        newest = int(schema["validVersions"].partition("-")[2])
        if schema.get("latestVersionUnstable"):
            newest -= 1
        assert newest == message.MAX_VERSION, message.__name__


def test_oldest_version_of_every_message_is_spoken_but_where_nobody_needs_it(
    codec: Any, messages: tuple[ModuleType, ...]
) -> None:
    # Metadata: 4 is the first that can forbid the making of topics; Kafka has it since 0.11, as record batches v2.
    chosen = {metadata: 4, fetch: 4}
    for message in messages:
        schema = codec(API_NAMES[message.API_KEY], "Request", 0).schema
        oldest = int(schema["validVersions"].partition("-")[0])
        assert chosen.get(message, oldest) == message.MIN_VERSION, message.__name__
