"""What of the producer's ups and downs is written down: changes."""

import pytest

from collector.producer_log import ProducerLog
from kafka_client import (
    BrokerConnected,
    BrokerDisconnected,
    IdentityChanged,
    MetadataFailed,
    MetadataRefreshed,
    OperatorError,
)


def test_only_changes_are_logged(capsys: pytest.CaptureFixture[str]) -> None:
    log = ProducerLog()
    for _ in range(3):
        log.disconnected(BrokerDisconnected(broker=1, address="b:9092", reason="refused", idle=False))
        log.metadata_failed(MetadataFailed(address="b:9092", reason="refused"))
    log.connected(BrokerConnected(broker=1, address="b:9092"))
    log.disconnected(BrokerDisconnected(broker=1, address="b:9092", reason="reset", idle=False))
    log.disconnected(BrokerDisconnected(broker=2, address="c:9092", reason="closed", idle=True))
    log.metadata_refreshed(MetadataRefreshed(brokers=1, topics=2))
    log.metadata_refreshed(MetadataRefreshed(brokers=1, topics=2))
    log.identity_changed(IdentityChanged(producer_id=7, epoch=0))
    error = OperatorError(code=29, name="TOPIC_AUTHORIZATION_FAILED", advice="grant Write", scope="topic e", since=0.0)
    log.operator_error(error)
    log.operator_error_cleared(error)
    text = capsys.readouterr().err
    assert text.count("a broker is away") == 2
    assert text.count("an idle connection was closed") == 1
    assert text.count("the cluster does not answer") == 1
    assert text.count("the cluster answers again") == 1
    assert "grant Write" in text
    assert "producer_id" in text
