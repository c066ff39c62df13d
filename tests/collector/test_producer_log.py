"""What of the producer's ups and downs is written down: changes."""

import pytest

from collector.producer_log import ProducerLog
from kafka_client import OperatorError


def test_only_changes_are_logged(capsys: pytest.CaptureFixture[str]) -> None:
    log = ProducerLog()
    for _ in range(3):
        log.disconnected(1, "b:9092", "refused")
        log.metadata_failed("b:9092", "refused")
    log.connected(1, "b:9092")
    log.disconnected(1, "b:9092", "reset")
    log.metadata_refreshed(1, 2)
    log.metadata_refreshed(1, 2)
    log.identity_changed(7, 0)
    error = OperatorError(code=29, name="TOPIC_AUTHORIZATION_FAILED", advice="grant Write", scope="topic e", since=0.0)
    log.operator_error(error)
    log.operator_error_cleared(error)
    text = capsys.readouterr().err
    assert text.count("a broker is away") == 2
    assert text.count("the cluster does not answer") == 1
    assert text.count("the cluster answers again") == 1
    assert "grant Write" in text
    assert "producer_id" in text
