"""Which stage of an event's way a stack belongs to, in the collector's process.

Owns: the stages and what is done in each. Refuses to know: how samples are taken, and what a stage should cost.

Invariant: every stack has exactly one stage: that of the innermost function whose file is named here, so what a stage
has done for it by a library in C is its own.
"""

from collections.abc import Sequence
from types import CodeType

__all__ = ["STAGES", "stage_of_stack"]

READ = "read: the head, the body"
PARSE = "parse: bytes to typed events"
VALIDATE = "validate: each event"
ROUTE = "route: path, key, admission, deadline, counts"
ENCODE = "encode: record, batch, compression"
ENQUEUE = "enqueue: ids, ledger, queue"
ACKNOWLEDGE = "acknowledge: requests and answers, verdict"
ANSWER = "answer: head and body"
SOCKETS = "sockets: the kernel and Trio's layers"
TRIO = "Trio: tasks, clock, deadlines"
REST = "elsewhere: the monitor, the imports of the moment"

STAGES = (READ, PARSE, VALIDATE, ROUTE, ENCODE, ENQUEUE, ACKNOWLEDGE, ANSWER, SOCKETS, TRIO, REST)

#: What looks at one event, of dialects that take many at once.
_VALIDATING = frozenset(
    {"_judged", "_event", "_usual", "_check_user_id", "_check_other", "_check_kind", "_decided", "usable_identity"}
)
#: What a file's path contains -> the stage; the first that fits.
_ROOMS = (
    ("/trio/_socket.py", SOCKETS),
    ("/trio/_highlevel_socket.py", SOCKETS),
    ("/trio/_ssl.py", SOCKETS),
    ("/trio/_core/_io_epoll.py", SOCKETS),
    ("/trio/", TRIO),
    ("/outcome/", TRIO),
    ("<attrs generated", TRIO),
    ("/hypercorn/", READ),
    ("/collector/dialects/", PARSE),
    ("/collector/web/lane/answer.py", ANSWER),
    ("/collector/web/lane/cycle.py", ANSWER),
    ("/collector/web/lane/socket_transport.py", SOCKETS),
    ("/collector/web/lane/reactor.py", SOCKETS),
    ("/collector/web/lane/", READ),
    ("/collector/web/answers.py", ANSWER),
    ("/collector/web/cors.py", ANSWER),
    ("/collector/web/body.py", READ),
    ("/collector/web/head.py", READ),
    ("/collector/web/", ROUTE),
    ("/collector/keys.py", ROUTE),
    ("/collector/ingest/nursery.py", ROUTE),
    ("/collector/ingest/record.py", ENCODE),
    ("/collector/times.py", ENCODE),
    ("/collector/ingest/verdict.py", ACKNOWLEDGE),
    ("/collector/ingest/", ENQUEUE),
    ("/collector/monitor/", ROUTE),
    ("/kafka_client/wire/record_batch.py", ENCODE),
    ("/kafka_client/wire/compression.py", ENCODE),
    ("/kafka_client/wire/murmur2.py", ENCODE),
    ("/kafka_client/buffer/encoded.py", ENCODE),
    ("/kafka_client/sending/intake.py", ENQUEUE),
    ("/kafka_client/sending/topic.py", ENQUEUE),
    ("/kafka_client/producer.py", ENQUEUE),
    ("/kafka_client/buffer/queue.py", ENQUEUE),
    ("/kafka_client/buffer/partitioner.py", ENQUEUE),
    ("/kafka_client/buffer/budget.py", ENQUEUE),
    ("/kafka_client/", ACKNOWLEDGE),
)


def stage_of_stack(stack: Sequence[CodeType]) -> str:
    """The stage of a stack, innermost first."""
    for code in stack:
        file = code.co_filename
        for part, stage in _ROOMS:
            if part in file:
                return VALIDATE if stage is PARSE and code.co_name in _VALIDATING else stage
    return REST
