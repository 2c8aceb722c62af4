"""What a command does to a store beside its writers: removes flows, and completes the word table."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from soth_mitm.errors import StoreError
from soth_mitm.observe.store.retention import SLICE, expire_to, give_back, remove
from soth_mitm.observe.store.schema import check_owner, open_for_writing
from soth_mitm.observe.store.word_index import index_for, make_word_table

_USUAL_BYTES = 1 << 30


def prune(path: Path, what: int | Sequence[int]) -> int:
    """Remove flows by their ids, or the oldest until `what` bytes are used; return how many. `StoreError` says why it cannot be done."""
    check_owner(path)
    database = open_for_writing(path)
    try:
        if isinstance(what, int):
            removed = expire_to(database, what)
        else:
            removed = _remove(database, what)
        give_back(database, all_of_it=True)
        database.execute("pragma wal_checkpoint(truncate)").fetchall()
        return removed
    except sqlite3.Error as error:
        raise StoreError(f"flows cannot be removed from {path}: {error}") from error
    finally:
        database.close()


def _remove(database: sqlite3.Connection, ids: Sequence[int]) -> int:
    for start in range(0, len(ids), SLICE):
        database.execute("begin immediate")
        try:
            remove(database, ids[start : start + SLICE])
            database.execute("commit")
        except sqlite3.Error:
            if database.in_transaction:
                database.execute("rollback")
            raise
    return len(ids)


def index_missing(path: Path, seconds: float) -> None:
    """Put the words of flows into the word table that are not there yet, for so many seconds at most.

    Where that cannot be done, since the file may only be read or another process writes, the search goes without them.
    """
    try:
        database = open_for_writing(path)
    except StoreError:
        return
    try:
        if make_word_table(database):
            index_for(database, seconds, _USUAL_BYTES)
    except sqlite3.OperationalError:
        # busy, or full: what was put in is of use all the same
        return
    finally:
        database.close()
