"""The word tables of a store: which flows have which words.

There are two, one in use and one that grows old with its flows: no row of a word table is ever deleted, a table goes as a whole when its
last flow is gone, and rows of flows that went before are of no effect.
"""

import sqlite3
import time

from soth_mitm.observe.store.flow_row import OPEN
from soth_mitm.observe.store.reader import content_of
from soth_mitm.observe.store.schema import WORD_TABLES, get_meta

SLICE = 20
"""Flows that are put in within one transaction, which other writers wait for."""


def make_word_table(database: sqlite3.Connection) -> bool:
    """Make the table in use, unless it is there; tell whether this SQLite has word tables at all."""
    try:
        database.execute(_created(WORD_TABLES[get_meta(database, "words") - 1]))
    except sqlite3.OperationalError as error:
        if "no such module" in str(error):
            return False
        raise
    return True


def _created(table: str) -> str:
    return f"create virtual table if not exists {table} using fts5(text, content='', detail=none, columnsize=0, tokenize=ascii)"


def index_slice(database: sqlite3.Connection, max_bytes: int) -> int:
    """Put some flows that are over into the table in use; return how many there were. Raises what SQLite raises."""
    sql = "select id from flow where words = 0 and state != ? order by id limit ?"
    found = [id for (id,) in database.execute(sql, (OPEN, SLICE))]
    if not found:
        return 0
    texts = [(id, "" if content is None else " ".join(content.words())) for id in found for content in (content_of(database, id),)]
    database.execute("begin immediate")
    try:
        generation = get_meta(database, "words")
        table = WORD_TABLES[generation - 1]
        # another writer may have put some in meanwhile
        left = {id for (id,) in database.execute(sql, (OPEN, 2 * SLICE))}
        database.executemany(f"insert into {table}(rowid, text) values (?, ?)", [each for each in texts if each[0] in left])
        database.executemany("update flow set words = ? where id = ?", [(generation, id) for id, _ in texts if id in left])
        _change_table(database, generation, max_bytes, sum(len(text) for id, text in texts if id in left))
        database.execute("commit")
    except sqlite3.Error:
        if database.in_transaction:
            database.execute("rollback")
        raise
    return len(found)


def _change_table(database: sqlite3.Connection, generation: int, max_bytes: int, size: int) -> None:
    """Note how much the table in use has; begin the other one when that is enough, and no flow is in it any more."""
    database.execute("insert or ignore into meta values ('words_size', 0)")
    database.execute("update meta set value = value + ? where key = 'words_size'", (size,))
    if get_meta(database, "words_size") < max_bytes // 8:
        return
    other = 3 - generation
    if database.execute("select 1 from flow where words = ? limit 1", (other,)).fetchone() is None:
        database.execute(f"drop table if exists {WORD_TABLES[other - 1]}")
        database.execute(_created(WORD_TABLES[other - 1]))
        database.execute("update meta set value = ? where key = 'words'", (other,))
        database.execute("update meta set value = 0 where key = 'words_size'")


def index_for(database: sqlite3.Connection, seconds: float, max_bytes: int) -> None:
    """Put flows into the table in use until none is left, for so many seconds at most."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and index_slice(database, max_bytes):
        continue
