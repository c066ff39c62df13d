"""Every message in every version that we speak, against Kafka's own schemas and kio."""

import math
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kafka_client.wire import (
    api_versions,
    create_topics,
    describe_configs,
    fetch,
    init_producer_id,
    list_offsets,
    metadata,
    produce,
    sasl_authenticate,
    sasl_handshake,
)
from kafka_client.wire.frames import API_NAMES
from kafka_client.wire.primitives import NULL_UUID

few = settings(max_examples=8, deadline=None)

names = st.text(min_size=1, max_size=8)
int32s = st.integers(-(2**31), 2**31 - 1)
int64s = st.integers(-(2**63), 2**63 - 1)
ids = st.binary(min_size=16, max_size=16)

REQUESTS: dict[ModuleType, st.SearchStrategy[Any]] = {
    api_versions: st.builds(
        api_versions.ApiVersionsRequest, client_software_name=st.text(max_size=9), client_software_version=names
    ),
    create_topics: st.builds(
        create_topics.CreateTopicsRequest,
        topics=st.lists(
            st.builds(
                create_topics.NewTopic,
                name=names,
                partitions=int32s,
                replication_factor=st.integers(-1, 9),
                configs=st.lists(st.tuples(names, names | st.none()), max_size=3),
            ),
            max_size=3,
        ),
        timeout_ms=st.integers(0, 2**31 - 1),
        validate_only=st.booleans(),
    ),
    describe_configs: st.builds(
        describe_configs.DescribeConfigsRequest,
        resources=st.lists(
            st.builds(describe_configs.Resource, name=names, keys=st.none() | st.lists(names, max_size=3)), max_size=3
        ),
    ),
    fetch: st.builds(
        fetch.FetchRequest,
        topic=names,
        topic_id=ids,
        partition=int32s,
        offset=int64s,
        max_wait_ms=st.integers(0, 2**31 - 1),
    ),
    init_producer_id: st.builds(
        init_producer_id.InitProducerIdRequest,
        transactional_id=names | st.none(),
        producer_id=int64s,
        producer_epoch=st.integers(-1, 2**15 - 1),
    ),
    list_offsets: st.builds(
        list_offsets.ListOffsetsRequest,
        topics=st.dictionaries(names, st.lists(st.tuples(int32s, int64s), max_size=3), max_size=3),
    ),
    metadata: st.builds(
        metadata.MetadataRequest,
        topics=st.none() | st.lists(names, max_size=3),
        allow_auto_topic_creation=st.booleans(),
    ),
    produce: st.builds(
        produce.ProduceRequest,
        batches=st.lists(
            st.builds(produce.PartitionBatch, names, ids, int32s, st.binary(max_size=300)),
            max_size=4,
        ),
        timeout_ms=st.integers(0, 2**31 - 1),
        transactional_id=names | st.none(),
    ),
    sasl_authenticate: st.builds(sasl_authenticate.SaslAuthenticateRequest, st.binary(max_size=300)),
    sasl_handshake: st.builds(sasl_handshake.SaslHandshakeRequest, names),
}


def check(kind: str, message: ModuleType) -> Callable[[int, Any, Any], None]:
    """What compares our dataclass with the schema's value: ``request_of_fetch`` and so on."""
    found: Callable[[int, Any, Any], None] = globals()[f"{kind}_of_{message.__name__.rpartition('.')[2]}"]
    return found


def absent(value: Any, default: Any) -> Any:
    return default if value is None else value


@given(data=st.data())
@few
def test_request_every_version_reads_back_by_the_schema(
    codec: Any, message: ModuleType, version: int, data: st.DataObject
) -> None:
    request = data.draw(REQUESTS[message])
    oracle = codec(API_NAMES[message.API_KEY], "Request", version)
    encoded = message.encode_request(request, version)
    oracle.read_by_kio(encoded)
    check("request", message)(version, request, oracle.decode(encoded))


def request_of_api_versions(version: int, request: Any, found: Any) -> None:
    if version >= 3:
        for name in ("client_software_name", "client_software_version"):
            # Kafka's own expression (ApiVersionsRequest.java): what does not match is answered with 42.
            assert re.fullmatch(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?", found[name], re.ASCII)
            wanted = getattr(request, name)
            assert wanted == found[name] or not re.fullmatch(r"[a-zA-Z0-9]+", wanted, re.ASCII)


def request_of_create_topics(version: int, request: Any, found: Any) -> None:
    assert (found["timeout_ms"], found["validate_only"]) == (request.timeout_ms, request.validate_only)
    assert found["topics"] == [
        {
            "name": topic.name,
            "num_partitions": topic.partitions,
            "replication_factor": topic.replication_factor,
            "assignments": [],
            "configs": [{"name": name, "value": value} for name, value in topic.configs],
        }
        for topic in request.topics
    ]


def request_of_describe_configs(version: int, request: Any, found: Any) -> None:
    assert found["resources"] == [
        {"resource_type": one.type, "resource_name": one.name, "configuration_keys": one.keys}
        for one in request.resources
    ]
    assert not found["include_synonyms"]


def request_of_fetch(version: int, request: Any, found: Any) -> None:
    assert (found["max_wait_ms"], found["min_bytes"], found["max_bytes"]) == (request.max_wait_ms, 1, 2**20)
    assert found.get("replica_id", -1) == -1
    assert found.get("session_epoch", -1) == -1
    [topic] = found["topics"]
    assert (topic["topic"] if version < 13 else topic["topic_id"]) == (
        request.topic if version < 13 else request.topic_id
    )
    [partition] = topic["partitions"]
    assert (partition["partition"], partition["fetch_offset"]) == (request.partition, request.offset)


def request_of_init_producer_id(version: int, request: Any, found: Any) -> None:
    assert found["transactional_id"] == request.transactional_id
    if version >= 3:
        assert (found["producer_id"], found["producer_epoch"]) == (request.producer_id, request.producer_epoch)


def request_of_list_offsets(version: int, request: Any, found: Any) -> None:
    assert {
        topic["name"]: [(one["partition_index"], one["timestamp"]) for one in topic["partitions"]]
        for topic in found["topics"]
    } == request.topics


def request_of_metadata(version: int, request: Any, found: Any) -> None:
    topics = None if found["topics"] is None else [topic["name"] for topic in found["topics"]]
    assert topics == request.topics
    assert found["allow_auto_topic_creation"] == request.allow_auto_topic_creation
    if version >= 10:
        assert all(topic["topic_id"] == NULL_UUID for topic in found["topics"] or ())


def request_of_produce(version: int, request: Any, found: Any) -> None:
    assert (found["acks"], found["timeout_ms"]) == (-1, request.timeout_ms)
    assert found["transactional_id"] == request.transactional_id
    named = "name" if version < 13 else "topic_id"
    assert sorted(
        (topic[named], part["index"], part["records"])
        for topic in found["topic_data"]
        for part in topic["partition_data"]
    ) == sorted(
        (batch.topic if version < 13 else batch.topic_id, batch.partition, batch.records) for batch in request.batches
    )


def request_of_sasl_authenticate(version: int, request: Any, found: Any) -> None:
    assert found == {"auth_bytes": request.auth_bytes}


def request_of_sasl_handshake(version: int, request: Any, found: Any) -> None:
    assert found == {"mechanism": request.mechanism}


@given(data=st.data())
@few
def test_response_every_version_is_what_the_schema_encoded(
    codec: Any, message: ModuleType, version: int, data: st.DataObject
) -> None:
    oracle = codec(API_NAMES[message.API_KEY], "Response", version)
    value = data.draw(oracle.values())
    response = message.decode_response(oracle.encode(value), version)
    check("response", message)(version, response, value)
    if hasattr(response, "throttle_time_ms") and not getattr(response, "error_code", 0):
        assert response.throttle_time_ms == value.get("throttle_time_ms", 0)


@given(data=st.data())
@few
def test_response_every_version_schema_interpreter_agrees_with_kio(
    codec: Any, message: ModuleType, version: int, data: st.DataObject
) -> None:
    oracle = codec(API_NAMES[message.API_KEY], "Response", version)
    oracle.read_by_kio(oracle.encode(data.draw(oracle.values(tame=True))))


def response_of_api_versions(version: int, response: Any, value: Any) -> None:
    assert response.error_code == value["error_code"]
    expected = {row["api_key"]: (row["min_version"], row["max_version"]) for row in value["api_keys"]}
    assert response.versions == ({} if value["error_code"] else expected)


def response_of_create_topics(version: int, response: Any, value: Any) -> None:
    assert [(t.name, t.error_code, t.error_message, t.partitions) for t in response.topics] == [
        (t["name"], t["error_code"], t["error_message"], t.get("num_partitions", -1)) for t in value["topics"]
    ]


def response_of_describe_configs(version: int, response: Any, value: Any) -> None:
    assert [(r.error_code, r.error_message, r.type, r.name) for r in response.resources] == [
        (r["error_code"], r["error_message"], r["resource_type"], r["resource_name"]) for r in value["results"]
    ]
    for resource, result in zip(response.resources, value["results"], strict=True):
        assert [(c.name, c.value, c.read_only, c.source, c.is_sensitive) for c in resource.configs] == [
            (c["name"], c["value"], c["read_only"], c["config_source"], c["is_sensitive"]) for c in result["configs"]
        ]


def response_of_fetch(version: int, response: Any, value: Any) -> None:
    assert response.error_code == value.get("error_code", 0)
    assert [
        (p.partition, p.error_code, p.high_watermark, p.log_start_offset, bytes(p.records)) for p in response.partitions
    ] == [
        (
            p["partition_index"],
            p["error_code"],
            p["high_watermark"],
            p.get("log_start_offset", -1),
            absent(p["records"], b""),
        )
        for topic in value["responses"]
        for p in topic["partitions"]
    ]


def response_of_init_producer_id(version: int, response: Any, value: Any) -> None:
    assert (response.error_code, response.producer_id, response.producer_epoch) == (
        value["error_code"],
        value["producer_id"],
        value["producer_epoch"],
    )


def response_of_list_offsets(version: int, response: Any, value: Any) -> None:
    assert [(p.topic, p.partition, p.error_code, p.timestamp_ms, p.offset) for p in response.partitions] == [
        (topic["name"], p["partition_index"], p["error_code"], p["timestamp"], p["offset"])
        for topic in value["topics"]
        for p in topic["partitions"]
    ]


def response_of_sasl_authenticate(version: int, response: Any, value: Any) -> None:
    assert (response.error_code, response.error_message, response.auth_bytes) == (
        value["error_code"],
        value["error_message"],
        value["auth_bytes"],
    )
    assert response.session_lifetime_ms == value.get("session_lifetime_ms", 0)


def response_of_sasl_handshake(version: int, response: Any, value: Any) -> None:
    assert (response.error_code, list(response.mechanisms)) == (value["error_code"], value["mechanisms"])


def response_of_metadata(version: int, response: Any, value: Any) -> None:
    assert [(b.id, b.host, b.port, b.rack) for b in response.brokers] == [
        (b["node_id"], b["host"], b["port"], b["rack"]) for b in value["brokers"]
    ]
    assert (response.cluster_id, response.controller_id) == (value["cluster_id"], value["controller_id"])
    assert response.error_code == value.get("error_code", 0)
    assert [(t.name, t.id, t.error_code, t.is_internal) for t in response.topics] == [
        (t["name"], t.get("topic_id", NULL_UUID), t["error_code"], t["is_internal"]) for t in value["topics"]
    ]
    for topic, expected in zip(response.topics, value["topics"], strict=True):
        assert [
            (p.index, p.error_code, p.leader, p.leader_epoch, list(p.replicas), list(p.isr), list(p.offline))
            for p in topic.partitions
        ] == [
            (
                p["partition_index"],
                p["error_code"],
                p["leader_id"],
                p.get("leader_epoch", -1),
                p["replica_nodes"],
                p["isr_nodes"],
                p.get("offline_replicas", []),
            )
            for p in expected["partitions"]
        ]


def response_of_produce(version: int, response: Any, value: Any) -> None:
    expected = [(topic, part) for topic in value["responses"] for part in topic["partition_responses"]]
    assert len(response.partitions) == len(expected)
    for result, (topic, part) in zip(response.partitions, expected, strict=True):
        assert (result.topic, result.topic_id) == (topic.get("name"), topic.get("topic_id"))
        assert (result.partition, result.error_code) == (part["index"], part["error_code"])
        assert (result.base_offset, result.log_append_time_ms) == (part["base_offset"], part["log_append_time_ms"])
        assert result.log_start_offset == part.get("log_start_offset", -1)
        assert result.error_message == part.get("error_message")
        assert [(one.batch_index, one.message) for one in result.record_errors] == [
            (one["batch_index"], one["batch_index_error_message"]) for one in part.get("record_errors", [])
        ]
        if "current_leader" in part:
            hint = part["current_leader"]
            assert (result.current_leader.leader_id, result.current_leader.leader_epoch) == (
                hint["leader_id"],
                hint["leader_epoch"],
            )
        else:
            assert result.current_leader is None
    assert [(one.node_id, one.host, one.port, one.rack) for one in response.node_endpoints] == [
        (one["node_id"], one["host"], one["port"], one["rack"]) for one in value.get("node_endpoints", [])
    ]


@pytest.mark.parametrize("message", [produce, fetch])
def test_topic_without_an_id_is_refused_where_only_ids_name_it(message: ModuleType) -> None:
    request = (
        produce.ProduceRequest(batches=[produce.PartitionBatch("t", None, 0, b"")], timeout_ms=1)
        if message is produce
        else fetch.FetchRequest(topic="t", topic_id=None, partition=0, offset=0, max_wait_ms=1)
    )
    with pytest.raises(ValueError, match="'t' has none"):
        message.encode_request(request, 13)


def test_api_versions_error_with_a_broken_body_is_still_an_error_code() -> None:
    # librdkafka's mock answers ApiVersions v3 with error 35 and a body in neither v0 nor v3.
    assert api_versions.decode_response(b"\x00\x23\x00\x00\x00\x07garbage", 3).error_code == 35


@pytest.mark.parametrize("version", [0, 1, 3, 4])
def test_api_versions_answer_is_a_window_for_each_key(codec: Any, version: int) -> None:
    value = {
        "error_code": 0,
        "api_keys": [
            {"api_key": 0, "min_version": 3, "max_version": 13},
            {"api_key": 99, "min_version": 0, "max_version": 0},
        ],
        "throttle_time_ms": 5,
        "supported_features": [{"name": "metadata.version", "min_version": 0, "max_version": 27}],
        "finalized_features_epoch": 7,
        "finalized_features": [],
        "zk_migration_ready": False,
    }
    response = api_versions.decode_response(codec("ApiVersions", "Response", version).encode(value), version)
    assert response.versions == {0: (3, 13), 99: (0, 0)}
    assert response.throttle_time_ms == (5 if version else 0)


@given(data=st.data())
@few
def test_metadata_partitions_of_one_shape_and_then_another_are_read_alike(codec: Any, data: st.DataObject) -> None:
    oracle = codec("Metadata", "Response", 12)
    shapes = data.draw(st.lists(st.tuples(*[st.integers(0, 3)] * 3, st.booleans()), min_size=1, max_size=4))
    partitions = [
        {
            "error_code": 0,
            "partition_index": len(shapes) * turn + index,
            "leader_id": 1,
            "leader_epoch": 2,
            "replica_nodes": [1] * replicas,
            "isr_nodes": [2] * isr,
            "offline_replicas": [3] * offline,
            "unknown_tags": {7: b"x"} if tagged and turn == 1 else {},
        }
        for index, (replicas, isr, offline, tagged) in enumerate(shapes)
        for turn in range(3)
    ]
    topic = {"error_code": 0, "name": "t", "topic_id": bytes(16), "is_internal": False, "partitions": partitions}
    value = {
        "throttle_time_ms": 0,
        "brokers": [],
        "cluster_id": None,
        "controller_id": -1,
        "topics": [topic | {"topic_authorized_operations": 0}],
    }
    response_of_metadata(12, metadata.decode_response(oracle.encode(value), 12), value)


def test_metadata_partitions_with_127_replicas_are_read_one_by_one() -> None:
    # 128, the compact count of 127, is two bytes; read as one byte it would look like the right count.
    assert math.log2(128) == 7
    many = tuple(range(127))

    def partition(index: int) -> bytes:
        replicas = b"\x80\x01" + b"".join(one.to_bytes(4, "big") for one in many)
        return b"\0\0" + index.to_bytes(4, "big") + b"\0\0\0\1" + b"\0\0\0\2" + replicas + b"\1" + b"\1" + b"\0"

    topic = b"\0\0" + b"\2t" + bytes(16) + b"\0" + b"\4" + b"".join(map(partition, range(3))) + bytes(4) + b"\0"
    body = bytes(4) + b"\1" + b"\0" + bytes(4) + b"\2" + topic + b"\0"
    [found] = metadata.decode_response(body, 12).topics
    assert [one.index for one in found.partitions] == [0, 1, 2]
    assert all(one.replicas == many for one in found.partitions)


def test_sasl_authenticate_repr_does_not_show_the_secret() -> None:
    assert "hunter2" not in repr(sasl_authenticate.SaslAuthenticateRequest(b"\0user\0hunter2"))
