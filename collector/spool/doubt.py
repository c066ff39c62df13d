"""A commit whose COMMIT failed: whether it is in the file that was opened anew.

Owns: the question and its proof. Refuses to know: Trio, who waits for the answer.

Theory. The rows say it, by their ids, which no other commit has: nobody changes the file between the doubt and the
answer. The account's number does not: the empty commit of the proof bears the same one, and can end in doubt itself;
and a salvage may have lost the account. Steps need no answer, they are done again.

Invariant: what was found here is on the disk, and what was not can never appear any more.
"""

import json
import sqlite3
from collections.abc import Sequence

from msgspec import Struct

from collector.spool.changes import Changes
from collector.spool.store import Store

__all__ = ["Doubt", "settle"]


class Doubt(Struct, frozen=True, kw_only=True, eq=False):
    """What the account says if the commit is there."""

    number: int
    """Of ``commits``; a later one may bear it too."""
    refused_total: int
    refused: int
    """Refusals that it counts."""

    @classmethod
    def of(cls, store: Store, refused: int) -> "Doubt":
        """Of the commit that comes next."""
        account = store.account
        return cls(number=account.commits + 1, refused_total=account.refused + refused, refused=refused)


def settle(store: Store, doubt: Doubt, ids: Sequence[int]) -> set[int]:
    """Which of the rows that the commit inserted are in this file, for good. Blocks.

    Raises:
        NotCommitted, CommitInDoubt, sqlite3.Error: It is still not known.
    """
    there = {
        row_id
        for (row_id,) in store.connection.execute(
            "SELECT r.id FROM json_each(?) AS j CROSS JOIN rows AS r ON r.id = j.value", (json.dumps(ids),)
        )
    }
    # Its frames may be in the log and not on the disk. Copying the log synchronises it once more.
    if (there or store.account.commits >= doubt.number) and not store.copied():
        raise sqlite3.OperationalError("a commit is in doubt, and the log cannot be copied into the file")
    if len(there) < len(ids):
        # A commit now writes over its frames, should there be any: from then on it is proved.
        store.commit(Changes())
    return there
