"""From a verdict to an HTTP answer: the part that all dialects share.

Owns: Retry-After, the outcome headers, and the words of a 503. Refuses to know: how a dialect phrases its answers (it
is asked), how bytes get out.

Invariant: everything temporary is 503 with Retry-After and its counts, everything permanent 400, success exactly 200.
"""

import random
from dataclasses import replace
from typing import assert_never

from collector.dialects.base import Answer, ClientFault, Dialect, Route
from collector.ingest.ledger import Counts
from collector.ingest.verdict import Kind, Verdict, outcome_line

__all__ = ["RETRY_AFTER_S", "answer_for", "plain", "unavailable"]

#: Spread, so that clients do not come back in step.
RETRY_AFTER_S = (4, 8)


def retry_after_s() -> int:
    """Whole seconds, drawn anew for each answer."""
    return random.randint(*RETRY_AFTER_S)


def plain(status: int, text: str) -> Answer:
    """An answer outside of every dialect."""
    return Answer(status=status, body=(text + "\n").encode())


def answer_for(dialect: Dialect, route: Route, verdict: Verdict) -> Answer:
    """What the client of this route reads."""
    match verdict.kind:
        case Kind.ACCEPTED:
            answer = dialect.accepted(route)
            # Else a client whose batch had bad events could not know. That some wait on our disk is for people.
            if verdict.counts.rejected or verdict.counts.spooled:
                headers = (*answer.headers, ("x-collector-outcome", verdict.outcome_line()))
                answer = replace(answer, headers=headers)
            return answer
        case Kind.REFUSED:
            return dialect.refused(route, verdict.fault or ClientFault("rejected", "no event was accepted"))
        case Kind.UNAVAILABLE:
            why = "not all events were accepted in time" if verdict.counts.total > 1 else "not accepted in time"
            return unavailable(dialect, route, why, verdict)
        case _:
            assert_never(verdict.kind)


def unavailable(dialect: Dialect | None, route: Route | None, why: str, verdict: Verdict | None = None) -> Answer:
    """503 with Retry-After and its counts; without a verdict nothing was read or sent, and all counts are 0."""
    line = verdict.outcome_line() if verdict is not None else outcome_line(Counts())
    message = f"{why}; send it again later: {line}"
    answer = plain(503, message) if dialect is None else dialect.unavailable(route, message)
    headers = [*answer.headers, ("retry-after", str(retry_after_s())), ("x-collector-outcome", line)]
    if verdict is not None and verdict.unknown_positions:
        headers.append(("x-collector-unknown", verdict.unknown_line()))
    return Answer(status=answer.status, body=answer.body, content_type=answer.content_type, headers=tuple(headers))
