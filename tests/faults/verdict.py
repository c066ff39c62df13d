"""What a row has to hold, and which of it does not.

Owns: the bounds. Refuses to know: how the figures were made.
"""

from collections.abc import Iterator

from tests.faults.account import ANSWER_WITHIN_S
from tests.faults.rows import Row
from tests.faults.running import Result

__all__ = ["broken"]

OK_SHARE = 0.999
GOODPUT_SHARE = 0.9
OUTAGE_P99_S = 0.25


def broken(row: Row, result: Result) -> tuple[str, ...]:
    """Say what does not hold, each in a few words; empty where all does."""
    checks = (_fates, _answers, _share, _server)
    return tuple(words for check in checks for words in check(row, result))


def _fates(row: Row, result: Result) -> Iterator[str]:
    """Events: nothing is lost, nothing is there that was not said."""
    account = result.account
    if not account.sent:
        yield "nothing was sent"
    if account.lost_events:
        yield f"{account.lost_events} lost"
    if account.duplicates_unmarked:
        yield f"{account.duplicates_unmarked} duplicates unmarked"
    if account.ghosts_unannounced:
        yield f"{account.ghosts_unannounced} ghosts denied"
    if account.ghosts_without_word and not row.kills:
        yield f"{account.ghosts_without_word} ghosts without a word"


def _answers(row: Row, result: Result) -> Iterator[str]:
    """Requests: each is answered, in time, by the server itself."""
    account, upstream = result.account, result.upstream
    if upstream.timeouts:
        yield f"{upstream.timeouts} × 504"
    for words, count in upstream.errors.items():
        if words != "504" and not row.kills:
            yield f"{count} × {words}"
    if account.late:
        yield f"{account.late} answered after {ANSWER_WITHIN_S:g} s"
    if account.no_answer and not row.kills:
        yield f"{account.no_answer} without an answer"
    if account.not_connected and not row.kills:
        yield f"{account.not_connected} found no connection"
    for status, count in account.other.items():
        yield f"{count} answered {status}"


def _share(row: Row, result: Result) -> Iterator[str]:
    """How much of the load is served."""
    if row.outage and result.account.ok_share < OK_SHARE:
        yield f"200s {result.account.ok_share:.2%}"
    share = result.goodput_share
    if share is not None and share < GOODPUT_SHARE:
        yield f"goodput {share:.0%} of capacity"
    if result.outage_p99_s is not None and not result.outage_p99_s <= OUTAGE_P99_S:
        yield f"p99 in the outage {result.outage_p99_s * 1000:.0f} ms"


def _server(row: Row, result: Result) -> Iterator[str]:
    """The collector's own house."""
    if result.spool_rows is None:
        return  # the baseline's: nothing of this is configured there
    if result.highest_bytes > result.allowed_bytes:
        yield f"memory above {result.allowed_bytes / 1e6:.0f} MB"
    if result.spool_rows:
        yield f"{result.spool_rows} rows left in the spool"
    for name, value in result.differences.items():
        if value:
            yield f"{name} {value:g}"
    if result.worst_difference:
        yield f"a ledger was off by {result.worst_difference:g}"
