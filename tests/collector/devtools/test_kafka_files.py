"""The files around a Kafka node, without a Kafka; the real one is started by tests/integration."""

from pathlib import Path

from collector.devtools.kafka_properties import cluster_id


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
