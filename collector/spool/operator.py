"""What an operator does to a spool: has dead rows tried again, drops rows for good.

Owns: which rows a choice means, and in which steps it is carried out. Refuses to know: how the choice was made (a
command line, a request to the admin listener), who may make it, what a step does.

A dead spool, one whose process is gone, is opened here by whoever holds its lock (`drop_from`). A live one
does the same steps through its own writer (`collector.spool.spool`): nobody else may write into its file.
"""

import sqlite3
from collections.abc import Collection, Iterator, Sequence

from msgspec import Struct

from collector.spool.changes import Changes, Leave, Step
from collector.spool.dead import Discard, Revive
from collector.spool.store import Store

__all__ = ["Choice", "Chosen", "Done", "choose", "drop_from"]

STEP_ROWS = 5000
"""Of one commit: some 50 ms on a slow disk, so that a live spool's requests do not wait longer."""


class Choice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which rows are to be dropped; several together are all of them."""

    dead: bool = False
    """Every dead row."""
    rows: bool = False
    """Every row that waits, held and attempted ones too."""
    ids: Sequence[int] = ()
    """These, dead or waiting."""


class Done(Struct, frozen=True, kw_only=True):
    """What became of a choice."""

    rows: int = 0
    """That waited, and are dropped."""
    dead: int = 0
    """That were dead, and are dropped or wait again."""
    on_their_way: int = 0
    """Chosen, but with the replay, sent or about to be: they stay."""
    missing: Sequence[int] = ()
    """Ids that were chosen, and that nothing has."""


class Chosen(Struct, frozen=True, kw_only=True):
    """A choice, found in a file."""

    rows: Sequence[int]
    dead: Sequence[int]
    on_their_way: int = 0
    missing: Sequence[int] = ()

    def without(self, in_work: Collection[int]) -> "Chosen":
        """Less what the replay has."""
        rows = [row_id for row_id in self.rows if row_id not in in_work]
        return Chosen(rows=rows, dead=self.dead, on_their_way=len(self.rows) - len(rows), missing=self.missing)

    def dropping(self) -> Iterator[Step]:
        """The steps that drop all of it, one for each commit."""
        for ids in _parts(self.rows):
            yield Leave(ids, "dropped")
        for ids in _parts(self.dead):
            yield Discard(ids)

    def reviving(self) -> Iterator[Step]:
        """The steps that put its dead rows back."""
        for ids in _parts(self.dead):
            yield Revive(ids)

    def done(self) -> Done:
        return Done(rows=len(self.rows), dead=len(self.dead), on_their_way=self.on_their_way, missing=self.missing)


def choose(choice: Choice, connection: sqlite3.Connection) -> Chosen:
    """Find the rows that the choice means."""
    wanted = set(choice.ids)
    rows = [row_id for (row_id,) in connection.execute("SELECT id FROM rows") if choice.rows or row_id in wanted]
    dead = [row_id for (row_id,) in connection.execute("SELECT id FROM dead") if choice.dead or row_id in wanted]
    return Chosen(rows=rows, dead=dead, missing=sorted(wanted.difference(rows, dead)))


def drop_from(store: Store, choice: Choice) -> Done:
    """Drop from a file that nobody else uses. Raises what `Store.commit` does."""
    chosen = choose(choice, store.connection)
    for step in chosen.dropping():
        store.commit(Changes(steps=[step]))
    return chosen.done()


def _parts(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for first in range(0, len(ids), STEP_ROWS):
        yield ids[first : first + STEP_ROWS]
