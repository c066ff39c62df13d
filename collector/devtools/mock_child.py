"""librdkafka's mock cluster, alone in its process: ``python -m …mock_child BROKERS TOPIC:PARTITIONS…``.

Owns: the ctypes calls into the library that the confluent-kafka wheel ships, and the line protocol with its parent:
first ``ready h:p,h:p`` on stdout, then one command a line on stdin (see `COMMANDS`), each answered with ``ok`` or
``error …``; the end of stdin ends the process. Refuses to know: who asks. Imports nothing but the standard library,
to start fast.

Non-obvious: always a process of its own, for the library is not made to fail well. On a Produce v10 to a partition
without a leader it segfaults: before ``leader … -1`` takes one away, every connection is closed, and from then on the
brokers speak Produce up to 9 only. It closes the connection on CreateTopics, so it makes its topics itself.
"""

import ctypes
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

#: Numbers in commands are brokers, partitions, milliseconds and Kafka's codes, as librdkafka takes them.
COMMANDS = {
    "down": ("rd_kafka_mock_broker_set_down", (ctypes.c_int32,)),
    "up": ("rd_kafka_mock_broker_set_up", (ctypes.c_int32,)),
    "rtt": ("rd_kafka_mock_broker_set_rtt", (ctypes.c_int32, ctypes.c_int)),
    "leader": ("rd_kafka_mock_partition_set_leader", (ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32)),
    "topic": ("rd_kafka_mock_topic_create", (ctypes.c_char_p, ctypes.c_int, ctypes.c_int)),
}

#: ``refuse API CODE COUNT``: the next so many requests of that kind are answered with that error, on whatever broker.
REFUSE = "refuse"

#: In place of a broker's number.
NO_LEADER = -1
#: The newest Produce that a partition without a leader can be asked with.
PRODUCE_WITHOUT_LEADER = 9


def find_library() -> Path:
    """Return the librdkafka inside the confluent-kafka wheel."""
    spec = importlib.util.find_spec("confluent_kafka")
    if spec is None or spec.origin is None:
        raise SystemExit("confluent-kafka is missing: install the extra `collector[dev]` or `collector[testing]`")
    package = Path(spec.origin).parent
    for pattern in ("../confluent_kafka.libs/librdkafka-*.so*", ".dylibs/librdkafka*.dylib"):
        for found in sorted(package.glob(pattern)):
            return found
    raise SystemExit("this confluent-kafka has no librdkafka of its own")


class MockCluster:
    """The library's handle, and the few calls we make of it."""

    def __init__(self, brokers: int) -> None:
        self._brokers = brokers
        self._library = ctypes.CDLL(str(find_library()))
        for name, result in (
            ("rd_kafka_conf_new", ctypes.c_void_p),
            ("rd_kafka_new", ctypes.c_void_p),
            ("rd_kafka_mock_cluster_new", ctypes.c_void_p),
            ("rd_kafka_mock_cluster_bootstraps", ctypes.c_char_p),
            ("rd_kafka_err2str", ctypes.c_char_p),
        ):
            getattr(self._library, name).restype = result
        error = ctypes.create_string_buffer(512)
        configuration = ctypes.c_void_p(self._library.rd_kafka_conf_new())
        self._client = ctypes.c_void_p(self._library.rd_kafka_new(0, configuration, error, ctypes.c_size_t(512)))
        if not self._client:
            raise SystemExit(f"rd_kafka_new: {error.value.decode()}")
        self._cluster = ctypes.c_void_p(self._library.rd_kafka_mock_cluster_new(self._client, brokers))
        if not self._cluster:
            raise SystemExit("rd_kafka_mock_cluster_new failed")

    @property
    def bootstrap_servers(self) -> str:
        found: bytes = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster)
        return found.decode()

    def call(self, command: str, arguments: Sequence[str]) -> str:
        """Run one command and return its answer."""
        if command == REFUSE and len(arguments) == 3:
            api, code, count = map(int, arguments)
            codes = (ctypes.c_int * count)(*[code] * count)
            push = self._library.rd_kafka_mock_push_request_errors_array
            push(self._cluster, ctypes.c_int16(api), ctypes.c_size_t(count), codes)
            return "ok"
        if command not in COMMANDS:
            return f"error unknown command {command!r}: one of {', '.join((*COMMANDS, REFUSE))}"
        function, types = COMMANDS[command]
        if len(arguments) != len(types):
            return f"error {command} takes {len(types)} arguments"
        values = [
            kind(a.encode()) if kind is ctypes.c_char_p else kind(int(a))
            for kind, a in zip(types, arguments, strict=True)
        ]
        call = getattr(self._library, function)
        if command == "leader" and arguments[2] == str(NO_LEADER):
            code = self._while_down(call, values)
        else:
            code = call(self._cluster, *values)
        if code == 0:
            return "ok"
        text: bytes = self._library.rd_kafka_err2str(code)
        return f"error {code} {text.decode()}"

    def _while_down(self, call: Callable[..., int], values: Sequence[object]) -> int:
        """Take a leader away so that no broker is sent a Produce that it would die of."""
        brokers = [ctypes.c_int32(number) for number in range(1, self._brokers + 1)]
        for broker in brokers:
            self._library.rd_kafka_mock_broker_set_down(self._cluster, broker)
        lowest_highest = (ctypes.c_int16(0), ctypes.c_int16(PRODUCE_WITHOUT_LEADER))
        code: int = self._library.rd_kafka_mock_set_apiversion(self._cluster, ctypes.c_int16(0), *lowest_highest)
        code = code or call(self._cluster, *values)
        for broker in brokers:
            self._library.rd_kafka_mock_broker_set_up(self._cluster, broker)
        return code


def main() -> None:
    """Serve until stdin ends."""
    cluster = MockCluster(int(sys.argv[1]))
    for row in sys.argv[2:]:
        topic, _, partitions = row.partition(":")
        answer = cluster.call("topic", (topic, partitions or "12", sys.argv[1]))
        if answer != "ok":
            raise SystemExit(f"topic {topic}: {answer}")
    print("ready", cluster.bootstrap_servers, flush=True)
    for line in sys.stdin:
        words = line.split()
        if words:
            print(cluster.call(words[0], words[1:]), flush=True)


if __name__ == "__main__":
    main()
