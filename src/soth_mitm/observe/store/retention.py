"""What a store removes: the oldest flows when there are too many bytes, or when they are too old; and what it gives back to the disk."""

import sqlite3
from collections.abc import Sequence

from soth_mitm.observe.store.flow_row import OPEN
from soth_mitm.observe.store.schema import PIECE_BITS

SLICE = 500
"""Flows that are removed within one transaction, which other writers wait for."""
SHARE = 50
"""One in so many flows goes at a time."""
_MOST_FREE = 8
"""Free pages are given back to the disk when they are more than one in so many, and more than `_LEAST_FREE`."""
_LEAST_FREE = 512
_GIVEN_BACK = 2048


def _number(database: sqlite3.Connection, pragma: str) -> int:
    return int(database.execute(f"pragma {pragma}").fetchone()[0])


def used_bytes(database: sqlite3.Connection) -> int:
    """Return how many bytes of the file are used."""
    return (_number(database, "page_count") - _number(database, "freelist_count")) * _number(database, "page_size")


def remove(database: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Remove flows with their pieces; within a transaction."""
    pieces = [(id << PIECE_BITS, (id + 1) << PIECE_BITS) for id in ids]
    database.executemany("delete from piece where id >= ? and id < ?", pieces)
    database.executemany("delete from flow where id = ?", [(id,) for id in ids])


def expire_oldest(database: sqlite3.Connection, count: int) -> int:
    """Remove the oldest flows that are over, so many of them at most; return how many there were. Raises what SQLite raises."""
    return _expire(database, "select id from flow where state != ? order by started limit ?", [OPEN], count)


def expire_before(database: sqlite3.Connection, moment: float) -> int:
    """Remove what is over and began before `moment`, in seconds since 1970; return how many there were. Raises what SQLite raises."""
    sql = "select id from flow where state != ? and started < ? order by started limit ?"
    removed = 0
    while (count := _expire(database, sql, [OPEN, moment], SLICE)) > 0:
        removed += count
    return removed


def _expire(database: sqlite3.Connection, sql: str, values: list[object], count: int) -> int:
    removed = 0
    while removed < count:
        database.execute("begin immediate")
        try:
            ids = [id for (id,) in database.execute(sql, [*values, min(SLICE, count - removed)])]
            remove(database, ids)
            database.execute("commit")
        except sqlite3.Error:
            if database.in_transaction:
                database.execute("rollback")
            raise
        removed += len(ids)
        if not ids:
            break
    return removed


def expire_to(database: sqlite3.Connection, max_bytes: int) -> int:
    """Remove the oldest flows until no more than `max_bytes` are used; return how many there were. Raises what SQLite raises."""
    removed = 0
    while used_bytes(database) > max_bytes:
        (flows,) = database.execute("select count(*) from flow").fetchone()
        count = expire_oldest(database, max(1, flows // SHARE))
        removed += count
        if count == 0:
            # what is left is open
            break
    return removed


def give_back(database: sqlite3.Connection, *, all_of_it: bool = False) -> None:
    """Shorten the file by pages that are free, if there are many."""
    free = _number(database, "freelist_count")
    if all_of_it or (free > _LEAST_FREE and free > _number(database, "page_count") // _MOST_FREE):
        database.execute(f"pragma incremental_vacuum({free if all_of_it else min(free, _GIVEN_BACK)})").fetchall()
