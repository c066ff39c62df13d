"""The other APIs: Metadata, InitProducerId, ListOffsets, Fetch, CreateTopics, ApiVersions, and broken frames."""

import struct
import uuid
from typing import Any

import trio

from kafka_client.testing import Api, RawClient

from .table import differs_on_purpose, scenario
from .target import CLOSED, Target, asking_for, fetching, new_topic, offsets_of, parts_by_index


async def closes(client: RawClient, data: bytes) -> object:
    """What comes after these bytes."""
    await trio.lowlevel.checkpoint()
    try:
        await client.stream.send_all(data)
        with trio.fail_after(5):
            frame = await client.receive_frame()
    except trio.BrokenResourceError:
        frame = None
    return CLOSED if frame is None else len(frame)


def framed(data: bytes) -> bytes:
    """With its length before it."""
    return struct.pack(">i", len(data)) + data


# ApiVersions


def versions_of(answer: Any) -> dict[int, tuple[int, int]]:
    """Those that the fake has too."""
    ours = set(map(int, Api)) - {Api.SASL_HANDSHAKE, Api.SASL_AUTHENTICATE}
    rows = {row["api_key"]: (row["min_version"], row["max_version"]) for row in answer["api_keys"]}
    return {key: window for key, window in sorted(rows.items()) if key in ours}


@scenario
async def api_versions(t: Target) -> Any:
    found = []
    for version in range(5):
        client = await t.connect()
        software = {"client_software_name": "raw", "client_software_version": "1.0"}
        answer: Any = await client.call(Api.API_VERSIONS, version, **software)
        found.append((answer["error_code"], answer.get("throttle_time"), versions_of(answer)))
    return found


@scenario
async def api_versions_of_the_future(t: Target) -> Any:
    client = await t.connect()
    found = []
    for version in (5, 99):
        request = bytearray(client.encode(Api.API_VERSIONS, 4, client_software_name="raw", client_software_version="1"))
        request[6:8] = version.to_bytes(2)
        await client.stream.send_all(request)
        frame = await client.receive_frame()
        assert frame is not None
        found.append(client.decode(Api.API_VERSIONS, 0, frame))
    return found


@scenario
async def api_versions_with_a_bad_software_name(t: Target) -> Any:
    found = []
    for name, version in (("", "1"), ("raw client", "1"), ("raw", ""), ("raw", "-1"), ("raw", "1.0-rc.1")):
        client = await t.connect()
        software = {"client_software_name": name, "client_software_version": version}
        answer: Any = await client.call(Api.API_VERSIONS, 3, **software)
        found.append((answer["error_code"], versions_of(answer)))
    return found


# Frames


@scenario
async def frames_that_are_no_requests(t: Target) -> Any:
    metadata = (await t.connect()).encode(Api.METADATA, 9, **asking_for("x"))[4:]
    frames = [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">i", -1),
        struct.pack(">i", 0),
        framed(b"\0\x03"),
        framed(metadata[:-1]),
        framed(metadata[:9]),
        framed(struct.pack(">hhi", 999, 0, 1) + b"\xff\xff"),
        framed(struct.pack(">hhi", Api.METADATA, 99, 1) + b"\xff\xff\0\0"),
        framed(struct.pack(">hhi", Api.PRODUCE, 2, 1) + b"\xff\xff\0\0\0"),
        framed(struct.pack(">hhi", Api.PRODUCE, 14, 1) + b"\xff\xff\0\0\0"),
        framed(struct.pack(">hhi", Api.METADATA, -1, 1) + b"\xff\xff\0\0"),
        struct.pack(">i", 100 * 1024 * 1024 + 1) + b"x",
    ]
    return [await closes(await t.connect(), frame) for frame in frames]


@differs_on_purpose("Kafka skips what a request carries beyond its members; for the fake that is a bug to be made loud")
async def frame_with_bytes_left_over(t: Target) -> Any:
    client = await t.connect()
    request = client.encode(Api.INIT_PRODUCER_ID, 0, transactional_id=None, transaction_timeout=0)[4:]
    return await closes(client, framed(request + b"tail"))


@scenario
async def frame_in_pieces_and_frames_in_one_piece(t: Target) -> Any:
    client = await t.connect()
    one, other = (client.encode(Api.METADATA, 9, **asking_for(name)) for name in ("x", "y"))
    for at in range(len(one)):
        await client.stream.send_all(one[at : at + 1])
    await client.stream.send_all(other + one)
    found = []
    for _ in range(3):
        frame = await client.receive_frame()
        assert frame is not None
        answer: Any = client.decode(Api.METADATA, 9, frame)
        found.append((frame[:4], [topic["name"] for topic in answer["topics"]]))
    return found


# Metadata


def topics_of(answer: Any) -> Any:
    """Without ids and the other scenarios' topics."""
    return [
        {**topic, "topic_id": topic.get("topic_id") is not None, "partitions": parts_by_index(topic["partitions"])}
        for topic in sorted(answer["topics"], key=lambda topic: topic["name"] or "")
    ]


@scenario
async def metadata_of_a_topic(t: Target) -> Any:
    topic, client = await t.topic(3), await t.connect()
    found = []
    for version in range(14):
        answer: Any = await client.call(Api.METADATA, version, **asking_for(topic.name))
        [known] = topics_of(answer)
        assert known.pop("name") == topic.name
        brokers = [broker["node_id"] for broker in answer["brokers"]]
        rest = {key: answer[key] for key in answer if key not in ("brokers", "topics", "cluster_id")}
        found.append((known, sorted(brokers), rest, "cluster_id" in answer))
    return found


@scenario
async def metadata_of_names_unknown_and_impossible(t: Target) -> Any:
    client = await t.connect()
    names = ["nowhere", "a/b", "", ".", "..", "x" * 249, "x" * 250, "ä"]
    return [
        [topics_of(await client.call(Api.METADATA, version, **asking_for(name))) for name in names]
        for version in (4, 9, 12)
    ]


@scenario
async def metadata_of_nothing_and_of_a_name_twice(t: Target) -> Any:
    topic, client = await t.topic(), await t.connect()
    nothing: Any = await client.call(Api.METADATA, 9, **asking_for())
    twice: Any = await client.call(Api.METADATA, 9, **asking_for(topic.name, "nowhere", topic.name))
    everything: Any = await client.call(Api.METADATA, 9, **{**asking_for(), "topics": None})
    all_names = [each["name"] for each in everything["topics"]]
    return [nothing["topics"], sorted(each["error_code"] for each in twice["topics"]), all_names.count(topic.name)]


@scenario
async def metadata_by_id(t: Target) -> Any:
    topic, client = await t.topic(), await t.connect()
    found = []
    for version in (10, 11, 12, 13):
        for topic_id in (topic.id, uuid.UUID(int=77)):
            request = {**asking_for(), "topics": [{"name": None, "topic_id": topic_id}]}
            answer: Any = await client.call(Api.METADATA, version, **request)
            found.append([(each["name"] == topic.name, each["error_code"]) for each in answer["topics"]])
    return found


# InitProducerId


@scenario
async def init_producer_id(t: Target) -> Any:
    old = await t.new_producer_id()
    found = []
    for version, producer_id, epoch in ((0, -1, -1), (2, -1, -1), (3, -1, -1), (4, old, 0), (4, old, 7), (5, 2**40, 0),
                                        (4, old, -1), (4, -1, 3)):  # fmt: skip
        client = await t.connect()
        answer: Any = await client.call(
            Api.INIT_PRODUCER_ID,
            version,
            transactional_id=None,
            transaction_timeout=0,
            producer_id=producer_id,
            producer_epoch=epoch,
        )
        fresh = answer["producer_id"] >= 0 and answer["producer_id"] != producer_id
        found.append((answer["error_code"], fresh, answer["producer_epoch"]))
    return found


# ListOffsets


@scenario
async def list_offsets(t: Target) -> Any:
    topic, client = await t.topic(), await t.connect()
    found: list[Any] = []

    async def ask(timestamp: int, version: int = 7, **rest: Any) -> Any:
        answer: Any = await client.call(Api.LIST_OFFSETS, version, **offsets_of(topic.name, timestamp, **rest))
        if answer is None:
            return CLOSED
        part = answer["topics"][0]["partitions"][0]
        return {**part, "timestamp": t.when(part["timestamp"])}

    found += [await ask(timestamp) for timestamp in (-1, -2, -3, 0, t.now_ms)]
    for step in (0, 10, 5):
        await t.produce(topic, t.batch(b"a", b"b", timestamp_ms=t.now_ms - 1000 + step, timestamp_deltas=[0, 1]))
    times = (-1, -2, -3, 0, t.now_ms - 1000, t.now_ms - 996, t.now_ms - 990, t.now_ms - 989, t.now_ms)
    found += [await ask(timestamp) for timestamp in times]
    found += [await ask(-1, version) for version in range(1, 11)]
    found += [await ask(-4, 8), await ask(-5, 9), await ask(-6, 9), await ask(-9)]
    found += [await ask(-1, partition=9), await ask(-1, epoch=0), await ask(-1, epoch=3)]
    return found


@scenario
async def list_offsets_of_an_unknown_topic(t: Target) -> Any:
    client = await t.connect()
    return await client.call(Api.LIST_OFFSETS, 7, **offsets_of("nowhere", -1))


# Fetch


@scenario
async def fetch_at_the_edges(t: Target) -> Any:
    topic, client = await t.topic(), await t.connect()
    found: list[Any] = []

    async def ask(offset: int, version: int = 12, **rest: Any) -> Any:
        rest = {"topic_id": topic.id, **rest}
        name = rest.pop("name", topic.name)
        answer: Any = await client.call(Api.FETCH, version, **fetching(name, offset, **rest))
        if answer is None:
            return CLOSED
        parts = [part for each in answer["responses"] for part in each["partitions"]]
        return answer.get("error_code"), [{**part, "records": len(part["records"] or b"")} for part in parts]

    found += [await ask(0), await ask(1), await ask(-1)]
    for size in (10, 100, 1000):
        await t.produce(topic, t.batch(b"x" * size, b"y"))
    found += [await ask(offset) for offset in (0, 1, 2, 5, 6, 7)]
    found += [await ask(0, version) for version in range(4, 18)]
    found += [await ask(0, partition_max_bytes=size) for size in (0, 1, 80, 250, 300)]
    found += [await ask(0, max_bytes=size) for size in (0, 1, 250, 1500)]
    found += [await ask(0, partition=3), await ask(0, name="nowhere"), await ask(0, 13, topic_id=uuid.UUID(int=77))]
    found += [await ask(0, epoch=0), await ask(0, epoch=1), await ask(6, min_bytes=1, wait_ms=20)]
    return found


# CreateTopics


@scenario
async def create_topics(t: Target) -> Any:
    client = await t.connect()
    stem = f"c-{uuid.uuid4().hex[:8]}"
    topic = await t.topic()
    wanted = [
        new_topic(f"{stem}-good", 2, 1, {"retention_ms": 1000}),
        new_topic(topic.name, 1, 1, {}),
        new_topic("a/b", 1, 1, {}),
        new_topic("", 1, 1, {}),
        new_topic("x" * 250, 1, 1, {}),
        new_topic(f"{stem}-zero", 0, 1, {}),
        new_topic(f"{stem}-negative", -2, 1, {}),
        new_topic(f"{stem}-wide", 1, 9, {}),
        new_topic(f"{stem}-thin", 1, 0, {}),
        new_topic(f"{stem}-unknown", 1, 1, {"no_such_thing": 1}),
        new_topic(f"{stem}-bad", 1, 1, {"cleanup_policy": "shred"}),
        new_topic(f"{stem}-number", 1, 1, {"retention_ms": "soon"}),
        new_topic(f"{stem}-defaults", -1, -1, {}),
    ]
    found = []
    for version in (2, 4, 7):
        for validate_only in (1, 0) if version == 7 else (1,):
            answer: Any = await client.call(
                Api.CREATE_TOPICS, version, timeout=10_000, validate_only=validate_only, topics=wanted
            )
            rows = sorted(answer["topics"], key=lambda row: [each["name"] for each in wanted].index(row["name"]))
            found.append([created(row) for row in rows])
    return found


def created(row: dict[str, Any]) -> Any:
    """One topic's answer without its name, its id and the values of its configuration."""
    rest = {key: row[key] for key in row if key not in ("name", "topic_id", "error_message", "configs")}
    configs = row.get("configs")
    return {
        **rest,
        "message": row.get("error_message") is not None,
        "id": row.get("topic_id") is not None,
        "configs": configs if not configs else {each["name"]: each["value"] for each in configs}.get("retention.ms"),
    }


@scenario
async def create_topics_of_one_name_twice(t: Target) -> Any:
    client = await t.connect()
    name = f"c-{uuid.uuid4().hex[:8]}"
    wanted = [new_topic(name, 1, 1, {}), new_topic(name, 2, 1, {})]
    answer: Any = await client.call(Api.CREATE_TOPICS, 7, timeout=10_000, validate_only=0, topics=wanted)
    return [created(row) for row in answer["topics"]]


# DescribeConfigs


@scenario
async def describe_configs(t: Target) -> Any:
    topic, client = await t.topic(min_insync_replicas=2, max_message_bytes=1234), await t.connect()
    keys = ["min.insync.replicas", "max.message.bytes", "cleanup.policy", "message.timestamp.type", "no.such.thing"]
    wanted = [(2, topic.name), (2, "nowhere"), (2, "a/b"), (4, "1"), (4, "9"), (4, "one"), (99, "x")]
    found = []
    for version in range(1, 5):
        for kind, name in wanted:
            resource = {"resource_type": kind, "resource_name": name, "configuration_keys": keys}
            answer: Any = await client.call(
                Api.DESCRIBE_CONFIGS,
                version,
                resources=[resource],
                include_synonyms=0,
                include_documentation=0,
            )
            [row] = answer["results"]
            shown = {each["name"]: (each["value"], each["config_source"]) for each in row["configs"]}
            found.append((row["error_code"], row["error_message"] is not None, shown if kind == 2 else len(shown)))
    return found
