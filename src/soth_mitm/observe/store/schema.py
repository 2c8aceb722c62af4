"""The tables of a flow store, and how its file is opened: by whom, with which rights, and by which version of this package."""

import os
import secrets
import sqlite3
import stat
import sys
from pathlib import Path

from soth_mitm.errors import StoreError

VERSION = 1
PAGE_SIZE = 8192
BUSY_SECONDS = 5.0
ID_BLOCK = 4096
"""Ids that a writer takes at once."""
PIECE_BITS, SIDE_BIT = 20, 19
"""`piece.id` is `flow << 20 | side << 19 | n`; side 0 goes to the upstream, 1 to the client."""
MOST_PIECES = 1 << SIDE_BIT
WORD_TABLES = ("word_1", "word_2")

TABLES = """
create table if not exists meta(key text primary key, value) without rowid;
create table if not exists session(
    id integer primary key, worker integer, pid integer, began real, ended real, version text, listening text,
    offered integer not null default 0, stored integer not null default 0, dropped integer not null default 0,
    expired integer not null default 0
);
create table if not exists flow(
    id integer primary key, revision integer not null, session integer not null, connection text, started real not null, took real,
    state text not null, outcome text, reason text, kind text, scheme text, host text, port integer, method text, path text, status integer,
    protocol text, program text, pid integer, client text, media text, request_bytes integer, response_bytes integer, first_byte real,
    piece_count integer, error text, provider text, model text, tokens_in integer, tokens_out integer, tokens_cached integer,
    first_token real, stop text, tools text, replayed integer not null default 0, words integer not null default 0, detail blob
);
create index if not exists flow_started on flow(started);
create index if not exists flow_revision on flow(revision);
create index if not exists flow_host on flow(host, started);
create index if not exists flow_without_words on flow(id) where words = 0;
create table if not exists piece(id integer primary key, data blob not null);
"""


def piece_id(flow: int, side: int, number: int) -> int:
    """Return the id of a piece."""
    return flow << PIECE_BITS | side << SIDE_BIT | number


def check_owner(path: Path) -> None:
    """Raise `StoreError` if `path` is a file of another user, or none at all."""
    try:
        found = path.stat()
    except OSError as error:
        raise StoreError(f"the flow store {path} cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise StoreError(f"the flow store {path} is no file")
    if sys.platform != "win32" and found.st_uid != os.getuid():
        raise StoreError(f"the flow store {path} belongs to another user (uid {found.st_uid}); give a path of your own")


def make_file(path: Path) -> None:
    """Make the file, for its owner alone, unless it is there; and its folder likewise. Raises `StoreError`."""
    try:
        if path.exists():
            check_owner(path)
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        # private from the first moment on: SQLite gives its journals the rights of the file
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreError(f"the flow store {path} cannot be made: {error.strerror}") from error
    check_owner(path)
    if sys.platform != "win32" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        path.chmod(0o600)


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open the store, made if it is not there. The caller owns the connection, which any thread may use, one at a time.

    Raises `StoreError`: the file is another user's, no store, or one of a later version.
    """
    make_file(path)
    try:
        database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise StoreError(f"the flow store {path} cannot be opened: {error}") from error
    try:
        # these two only count before the first table is made
        database.execute(f"pragma page_size = {PAGE_SIZE}")
        database.execute("pragma auto_vacuum = incremental")
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = normal")
        database.execute("pragma journal_size_limit = 8388608")
        database.execute("begin immediate")
        if not _is_empty(database):
            check_version(database, path)
        for statement in TABLES.split(";"):
            database.execute(statement)
        given = (("schema", VERSION), ("mask_key", secrets.token_bytes(32)), ("next_id", 1), ("revision", 0), ("words", 1))
        database.executemany("insert or ignore into meta values (?, ?)", given)
        database.execute("commit")
    except sqlite3.Error as error:
        database.close()
        raise StoreError(f"{path} cannot be used as a flow store: {error}") from error
    except StoreError:
        database.close()
        raise
    return database


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Open a store that is there; nothing can be changed through the connection, which any thread may use, one at a time.

    Raises `StoreError`: there is none, it is another user's, or no store of this version.
    """
    if not path.exists():
        raise StoreError(f"there is no flow store at {path}; `soth-mitm run` and `exec` keep one, or say where with --store FILE")
    check_owner(path)
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        database = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise StoreError(f"the flow store {path} cannot be opened: {error}") from error
    try:
        database.execute("pragma query_only = 1")
        check_version(database, path)
    except sqlite3.Error as error:
        database.close()
        raise StoreError(f"{path} is no flow store: {error}") from error
    except StoreError:
        database.close()
        raise
    return database


def _is_empty(database: sqlite3.Connection) -> bool:
    return not database.execute("select count(*) from sqlite_master").fetchone()[0]


def check_version(database: sqlite3.Connection, path: Path) -> None:
    """Raise `StoreError` unless the file is a store that this version reads."""
    try:
        found = database.execute("select value from meta where key = 'schema'").fetchone()
    except sqlite3.OperationalError as error:
        if "no such" not in str(error):
            raise
        found = None
    if found is None:
        raise StoreError(f"{path} is a database, and no flow store")
    if found[0] != VERSION:
        raise StoreError(f"{path} is a flow store of version {found[0]}, and this is version {VERSION}; give another path")


def get_meta(database: sqlite3.Connection, key: str) -> int:
    """Return a number that the store keeps of itself."""
    row = database.execute("select value from meta where key = ?", (key,)).fetchone()
    return int(row[0])
