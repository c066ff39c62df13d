"""What the producer does about each error code of a Produce answer: a table, not branches.

Owns: one row a code: the action, whether metadata is stale, whether the batch is *tainted* (it may be in the log
whatever happens next) and what to tell an operator. Refuses to know: how an action is carried out (sending/).

Invariant: a code that is not listed is final and taints: the outcome is Unknown, never NotSent, and decoding goes on.

Non-obvious: an answer to acks=all is not always definite. After the local append a request waits for its replicas; if
leadership is lost meanwhile the client is told 3, 6, 56 or 100 for a batch that *is* in the old leader's log and may be
replicated. ``base_offset >= 0`` beside an error gives it away, whatever the code: a broker that appended nothing says
-1 (LogAppendInfo.UNKNOWN_LOG_APPEND_INFO). Some clones put 0 beside every error; the price is an Unknown that could
have been a NotSent, never the reverse.

Source: the class, KIP or issue of Apache Kafka beside each row.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from .error_names import error_name

__all__ = ["ERRORS", "Action", "ErrorRow", "Taints", "error_row"]

Taints: TypeAlias = Literal["never", "always", "if_base_offset"]


class Action(enum.Enum):
    """What follows from one error code. Every action that tries again does so within its batch's deadline."""

    DELIVERED = "delivered"
    """The batch is in the log."""
    RETRY = "retry"
    """The same bytes again, after the backoff."""
    RE_ENCODE_ONCE = "re-encode once"
    """Encode the same range freshly and try once more; the second time it is final for the records."""
    SPLIT = "split"
    """Several records: halve the batch, keep its range. One record: final for it."""
    FINAL_RECORD = "final for the records"
    FINAL_UNKNOWN = "final, unknown"
    """Not tried again; the outcome is Unknown."""
    OPERATOR_TOPIC = "operator, topic"
    """A state of the topic that people have to mend: nothing new is sealed, one try every ``operator_retry_s``."""
    OPERATOR_PRODUCER = "operator, producer"
    """The same for everything that this producer sends."""
    SEQUENCE = "sequence"
    """45: by the state of the partition: behind an earlier retry, or an epoch bump."""
    EPOCH = "epoch"
    """47, 49, 59: a new epoch or a new producer id, then again."""
    RESTAMP = "re-stamp"
    """32: the named records get the wall clock once; then final for them. The rest of the batch goes on."""
    RECORD_ERRORS = "record errors"
    """87: the named records are final, the rest of the batch goes on."""
    RENEGOTIATE = "renegotiate"
    """35: ask for the versions once more, then operator-level for the producer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRow:
    """One row of the table."""

    code: int
    name: str
    """The protocol's own name of the code."""
    action: Action
    refresh_metadata: bool
    taints: Taints
    """Whether this answer leaves it open that the batch was appended."""
    definite: bool
    """With ``base_offset`` -1 this answer proves that *this* attempt appended nothing."""
    advice: str
    """For people: whose it is and what to do; empty where nothing needs to be done."""
    source: str

    def tainted_by(self, base_offset: int) -> bool:
        """Whether an answer with this code and ``base_offset`` taints the batch."""
        return self.taints == "always" or (self.taints == "if_base_offset" and base_offset >= 0)


def _row(
    code: int,
    action: Action,
    source: str,
    *,
    refresh: bool = False,
    taints: Taints = "if_base_offset",
    advice: str = "",
) -> ErrorRow:
    return ErrorRow(
        code=code,
        name=error_name(code),
        action=action,
        refresh_metadata=refresh,
        taints=taints,
        definite=taints == "if_base_offset",
        advice=advice,
        source=source,
    )


_BUG = "probably a bug of the client: please report it with the broker's version"
_ROWS = (
    _row(
        -1,
        Action.FINAL_UNKNOWN,
        "ReplicaManager.appendRecordsToLeader: whatever was not foreseen, at any moment; not a RetriableException",
        taints="always",
        advice="look into the broker's log",
    ),
    _row(0, Action.DELIVERED, "acknowledged with acks=all", taints="never"),
    _row(
        2,
        Action.RE_ENCODE_ONCE,
        "UnifiedLog.analyzeAndValidateRecords: the CRC; Java repeats the same bytes until its timeout, franz-go fails",
    ),
    _row(
        3,
        Action.RETRY,
        "ReplicaManager.getPartitionOrError, which DelayedProduce.tryComplete asks once more after the append",
        refresh=True,
        advice="the topic does not exist, or this principal may not see it: create it, or grant Describe on it",
    ),
    _row(5, Action.RETRY, "LeaderNotAvailableException is an InvalidMetadataException", refresh=True),
    _row(
        6,
        Action.RETRY,
        "Partition.appendRecordsToLeader, and after the append Partition.checkEnoughReplicasReachOffset; KIP-951",
        refresh=True,
    ),
    _row(7, Action.RETRY, "DelayedProduce.onExpiration: appended, its replicas not in time", taints="always"),
    _row(
        8,
        Action.RETRY,
        "librdkafka's err_actions and franz-go's kerr retry it, Java's BrokerNotAvailableException does not",
        refresh=True,
    ),
    _row(9, Action.RETRY, "ReplicaNotAvailableException is an InvalidMetadataException", refresh=True),
    _row(
        10,
        Action.SPLIT,
        "UnifiedLog.analyzeAndValidateRecords: max.message.bytes; halved as in KAFKA-3995",
        advice="raise the topic's max.message.bytes, or send smaller records",
    ),
    _row(13, Action.RETRY, "no broker's: clients make it for a lost connection", refresh=True, taints="always"),
    _row(
        17,
        Action.OPERATOR_TOPIC,
        "Topic.validate, by way of KafkaApis.handleProduceRequest",
        advice="the topic's name is not a valid one: correct the configuration",
    ),
    _row(
        18,
        Action.SPLIT,
        "UnifiedLog.append: the batch is larger than segment.bytes",
        advice="raise the topic's segment.bytes, or send smaller batches",
    ),
    _row(19, Action.RETRY, "Partition.appendRecordsToLeader looks at min.insync.replicas before it appends"),
    _row(
        20,
        Action.RETRY,
        "Partition.checkEnoughReplicasReachOffset looks at min.insync.replicas again after the append",
        taints="always",
    ),
    _row(21, Action.OPERATOR_PRODUCER, "ReplicaManager.isValidRequiredAcks; acks is always -1 here", advice=_BUG),
    _row(
        29,
        Action.OPERATOR_TOPIC,
        "KafkaApis.handleProduceRequest, KIP-11",
        advice="grant this principal Write on the topic",
    ),
    _row(
        31,
        Action.OPERATOR_PRODUCER,
        "KafkaApis.handleProduceRequest, KIP-98, relaxed by KIP-679",
        advice="grant this principal Write on a topic, or IdempotentWrite on the cluster (brokers before 2.8 need it)",
    ),
    _row(
        32,
        Action.RESTAMP,
        "LogValidator.validateTimestamp, KIP-937; KIP-467 names the records",
        advice="a timestamp outside message.timestamp.before/after.max.ms of the topic: mend the sender's clock",
    ),
    _row(
        33,
        Action.OPERATOR_PRODUCER,
        "SaslServerAuthenticator.handleHandshakeRequest, KIP-43",
        advice="the broker's sasl.enabled.mechanisms lacks ours",
    ),
    _row(
        34,
        Action.OPERATOR_PRODUCER,
        "KafkaApis.handleSaslAuthenticateRequest outside a SASL listener, KIP-152",
        advice="the listener and security.protocol do not fit together",
    ),
    _row(35, Action.RENEGOTIATE, "KIP-35", advice="the broker was changed for one that speaks other versions"),
    _row(37, Action.OPERATOR_TOPIC, "InvalidPartitionsException: CreateTopics and CreatePartitions only", advice=_BUG),
    _row(42, Action.OPERATOR_TOPIC, "InvalidRequestException: a request that breaks the protocol", advice=_BUG),
    _row(
        43,
        Action.OPERATOR_TOPIC,
        "LogValidator: the topic keeps a format without producer ids, KIP-98",
        advice="raise the topic's message.format.version to 0.11 or newer",
    ),
    _row(
        44,
        Action.OPERATOR_TOPIC,
        "PolicyViolationException, KIP-108; hosted brokers answer Produce with it",
        advice="a policy of the broker refuses the records: ask who set it",
    ),
    _row(45, Action.SEQUENCE, "ProducerAppendInfo.checkSequence, KIP-98, KIP-360"),
    _row(
        46,
        Action.DELIVERED,
        "Java's Sender.completeBatch: the log went on past the batch, its offset is not known any more",
        taints="never",
    ),
    _row(47, Action.EPOCH, "ProducerAppendInfo.checkProducerEpoch, KIP-360"),
    _row(48, Action.FINAL_RECORD, "transactions only: InvalidTxnStateException, before the append", advice=_BUG),
    _row(49, Action.EPOCH, "InvalidPidMappingException: the producer id expired"),
    _row(51, Action.RETRY, "transactions only: ConcurrentTransactionsException is retriable, KIP-890"),
    _row(53, Action.OPERATOR_PRODUCER, "transactions only: KafkaApis.handleProduceRequest", advice=_BUG),
    _row(55, Action.RETRY, "OperationNotAttemptedException: another part of the request was refused"),
    _row(
        56,
        Action.RETRY,
        "LogDirFailureChannel, KIP-112: a disk fault, possibly in the middle of an append",
        refresh=True,
        taints="always",
        advice="a broker's disk fails: look into its log",
    ),
    _row(
        58,
        Action.OPERATOR_PRODUCER,
        "SaslServerAuthenticator, KIP-152",
        advice="the broker refused our name or password",
    ),
    _row(
        59, Action.EPOCH, "UnknownProducerIdException of brokers before 2.5, KIP-360: the broker forgot this producer"
    ),
    _row(72, Action.RETRY, "ListenerNotFoundException is an InvalidMetadataException, KAFKA-6546", refresh=True),
    _row(74, Action.RETRY, "Partition.getLocalLog, KIP-320", refresh=True),
    _row(75, Action.RETRY, "Partition.getLocalLog, KIP-320", refresh=True),
    _row(
        76,
        Action.OPERATOR_TOPIC,
        "ProduceRequest.validateRecords, KIP-110",
        advice="the broker is older than the codec: choose another compression",
    ),
    _row(
        83, Action.RETRY, "EligibleLeadersNotAvailableException is an InvalidMetadataException, KIP-460", refresh=True
    ),
    _row(
        87,
        Action.RECORD_ERRORS,
        "LogValidator.validateRecord; KIP-467 names the records",
        advice="a compacted topic takes only records with a key",
    ),
    _row(89, Action.RETRY, "KIP-599: after throttle_time_ms"),
    _row(90, Action.OPERATOR_PRODUCER, "transactions only: ProducerFencedException, KIP-588", advice=_BUG),
    _row(
        100,
        Action.RETRY,
        "KafkaApis.handleProduceRequest from version 13 on, KIP-516: the topic was deleted, perhaps re-created",
        refresh=True,
    ),
    _row(103, Action.RETRY, "ReplicaManager.getPartitionOrError, KIP-516", refresh=True),
    _row(120, Action.FINAL_RECORD, "transactions only: TransactionAbortableException, KIP-890", advice=_BUG),
)

ERRORS: Mapping[int, ErrorRow] = MappingProxyType({row.code: row for row in _ROWS})


def error_row(code: int) -> ErrorRow:
    """The row of ``code``; an unlisted code is final and its outcome Unknown."""
    found = ERRORS.get(code)
    if found is not None:
        return found
    return _row(
        code,
        Action.FINAL_UNKNOWN,
        "not a code that Produce is known to answer with",
        taints="always",
        advice="look into the broker's log; the client may be older than the broker",
    )
