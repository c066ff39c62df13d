"""What the writer has done in its thread beside commits: opening, trying, making room, closing.

Owns: `Opener`, and the order of these steps. Refuses to know: Trio, rows, what a failure means for whom.
"""

import sqlite3
from contextlib import suppress
from typing import Protocol

from collector.spool.changes import Changes
from collector.spool.store import Store

__all__ = ["Opener", "close", "commit_in_need", "open_again", "probe"]


class Opener(Protocol):
    """How the writer gets at its file. All methods block."""

    @property
    def path(self) -> str:
        """The file, or while none could be chosen, the directory."""
        ...

    def open(self) -> Store:
        """Open the file, the directory and the lock as far as they are not open already.

        Raises:
            sqlite3.Error, OSError, Damaged: It does not work now.
        """
        ...

    def salvage(self) -> Store:
        """Put the damaged file aside, save what can be read into a new one, and open that.

        Raises: as `open`.
        """
        ...

    def give_room(self) -> None:
        """Give back the space that is kept for a full disk."""
        ...

    def keep_room(self) -> None:
        """Keep some space for a full disk, unless it is kept already.

        Raises:
            OSError: There is none.
        """
        ...

    def close(self) -> None:
        """Let go of the lock."""
        ...


def open_again(opener: Opener, store: Store | None, broken: Store | None, damaged: bool) -> Store:
    if broken is not None:
        with suppress(sqlite3.Error):
            broken.close()
    if store is not None:
        return store
    if broken is not None:
        # Opening takes space, and so does the proof of a commit in doubt; `probe` keeps it again where there is some.
        opener.give_room()
    return opener.salvage() if damaged else opener.open()


def probe(opener: Opener, store: Store) -> None:
    opener.keep_room()
    store.commit(Changes())


def commit_in_need(opener: Opener, store: Store, changes: Changes) -> None:
    """On a full disk: steps make room, and need some first. A log that is copied begins anew in the space it has."""
    opener.give_room()
    with suppress(sqlite3.Error):
        store.tidy()
    store.commit(changes)


def close(store: Store | None, opener: Opener) -> None:
    if store is not None:
        with suppress(sqlite3.Error):
            store.close()
    opener.close()
