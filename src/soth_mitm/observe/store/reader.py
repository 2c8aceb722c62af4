"""`StoreReader`: what is in a flow store, for the commands and the views.

Nothing can be changed through it. Each statement is short, and no transaction stays open between two calls, so that a reader which stays
does not let the file's journal grow. One thread at a time.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from soth_mitm.addresses import format_host_port
from soth_mitm.errors import StoreError
from soth_mitm.observe.filter_language import And, Node, parse_filter
from soth_mitm.observe.filter_predicate import text_test
from soth_mitm.observe.filter_sql import MOST_UNINDEXED, Condition, condition
from soth_mitm.observe.search_words import words_of
from soth_mitm.observe.store.attached import Attachment
from soth_mitm.observe.store.content import StoredPiece, decode_piece, decode_record
from soth_mitm.observe.store.flow_content import FlowContent, Side
from soth_mitm.observe.store.flow_row import COLUMNS, LOST, FlowDetail, FlowRow
from soth_mitm.observe.store.liveness import is_alive
from soth_mitm.observe.store.schema import SIDE_BIT, WORD_TABLES, get_meta, open_for_reading, piece_id

PAGE = 200
"""Flows of one page, unless it is asked for more."""
SECONDS = 5.0
"""How long one question may take, with all its statements; then `StoreError` says so."""
MOST_FACETS = 50
MOST_LISTED = 200_000
"""Ids that an index has."""
# Instructions of SQLite after which the time is looked at: of rows whose content is read, some fifty
_STEPS = 1000

_COLUMNS = ", ".join(COLUMNS)
_EVERYTHING = And(())


class FlowPage(msgspec.Struct, frozen=True):
    """Some flows, newest first."""

    rows: list[FlowRow]
    older: tuple[float, int] | None
    """Give it as `before` to get the next ones; None: there are none."""


class FlowIndex(msgspec.Struct, frozen=True, kw_only=True):
    """All flows that match, newest first, by id only."""

    revision: int
    """Of the last commit before it was read: what `changes` is to be asked for next."""
    ids: list[int]
    """The newest of them, up to a limit."""
    started: list[float]
    """When each of `ids` began."""
    total: int
    tokens_in: int | None
    tokens_out: int | None
    unseen: int
    """Flows that were not searched by words, since no word table has them yet."""


class Activity(msgspec.Struct, frozen=True):
    """What began within one step of time."""

    step: int
    """Counts from 0."""
    flows: int
    calls: int
    """Of these, calls of models that went well."""
    failed: int
    """Of these, blocked, failed, or answered with a status from 400 on."""


class Changes(msgspec.Struct, frozen=True):
    """What was written since a revision."""

    revision: int
    """Give it as `since` the next time."""
    rows: list[FlowRow]
    """Those that match, as they stand now, in the order in which they were written."""
    other: list[int]
    """Ids of flows that were written and do not match."""
    has_more: bool
    """Whether more was written than fits; ask again at once."""


class Facet(msgspec.Struct, frozen=True):
    """A value of a column, and how many flows have it."""

    value: str
    count: int


class Facets(msgspec.Struct, frozen=True, kw_only=True):
    """What the flows that match have in common, the most frequent values first, and sums over them. None: nothing was counted."""

    flows: int
    views: dict[str, int]
    """Flows by flag: `llm`, `stream`, `ws`, `failed`, `blocked`, `cut`, `tunnel`, `open`."""
    hosts: list[Facet]
    programs: list[Facet]
    models: list[Facet]
    calls: int
    """Calls of models."""
    uncounted: int
    """Of these, how many came without a count of tokens."""
    tokens_in: int | None
    tokens_out: int | None
    tokens_cached: int | None
    request_bytes: int
    response_bytes: int
    first: float | None
    """When the first of them began, in seconds since 1970."""
    last: float | None


class Hit(msgspec.Struct, frozen=True):
    """A flow that a search found."""

    row: FlowRow
    before: str
    """A line of its text: what is before the word, the word as it stands there, what is after it. All empty: it is not in the text."""
    word: str
    after: str


class Found(msgspec.Struct, frozen=True):
    """What a search found."""

    hits: list[Hit]
    unseen: int
    """Flows that were not searched, since no word table has them yet."""


class SessionRow(msgspec.Struct, frozen=True):
    """One run of one writer."""

    id: int
    worker: int
    pid: int
    began: float
    ended: float | None
    version: str
    listening: str
    offered: int
    """Updates of flows that came to it."""
    stored: int
    dropped: int
    """Updates that it could not keep, or that did not fit into the queue."""
    expired: int
    """Flows that it removed, being too many or too old."""
    is_live: bool
    """Whether it goes on."""

    @property
    def has_vanished(self) -> bool:
        """Whether its process went without a goodbye."""
        return self.ended is None and not self.is_live


class StoreReader:
    """Reads the store at `path`. `StoreError`: there is none, it is another user's, or it is none of this version."""

    def __init__(self, path: Path | str, *, seconds: float = SECONDS) -> None:
        self.path = Path(path)
        self._seconds = seconds
        self._database = open_for_reading(self.path)
        # a function of the connection may not use the connection
        self._beside = open_for_reading(self.path)
        self._attachment: Attachment | None = None
        self._until = 0.0
        self._is_asking = False
        self._lost_sessions: frozenset[int] = frozenset()
        self._checked = 0.0
        self._last: tuple[int, int, FlowContent] | None = None
        self._database.create_function("soth_url", 4, _url, deterministic=True)
        self._database.set_progress_handler(self._is_late, _STEPS)

    def close(self) -> None:
        """Let go of the file."""
        if self._attachment is not None:
            self._attachment.close()
        self._database.close()
        self._beside.close()

    def __enter__(self) -> "StoreReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- flows

    def flows(self, filter: Node | str = _EVERYTHING, *, limit: int = PAGE, before: tuple[float, int] | None = None) -> FlowPage:
        """Return the newest flows that match, or those before `before`. `FilterError` if `filter` is text that cannot be read."""
        made = self._condition(filter)
        older, values = ("", []) if before is None else (" and (started, id) < (?, ?)", list(before))
        sql = f"select {_COLUMNS} from flow where ({made.sql}){older} order by started desc, id desc limit ?"
        rows = [self._row(each) for each in self._ask(made, sql, [*made.values, *values, limit + 1])]
        return FlowPage(rows[:limit], (rows[limit - 1].started, rows[limit - 1].id) if len(rows) > limit else None)

    def count(self, filter: Node | str = _EVERYTHING) -> int:
        """Return how many flows match."""
        made = self._condition(filter)
        return int(self._ask(made, f"select count(*) from flow where {made.sql}", made.values)[0][0])

    def row(self, id: int) -> FlowRow | None:
        """Return one flow; None: it is not there, or not any more."""
        rows = self._ask(None, f"select {_COLUMNS} from flow where id = ?", [id])
        return self._row(rows[0]) if rows else None

    def rows(self, ids: Sequence[int]) -> list[FlowRow]:
        """Return flows by their ids, in the order of `ids`, without those that are not there."""
        marks = ", ".join("?" * len(ids))
        found = {each[0]: self._row(each) for each in self._ask(None, f"select {_COLUMNS} from flow where id in ({marks})", list(ids))}
        return [found[id] for id in ids if id in found]

    def index(self, filter: Node | str = _EVERYTHING, *, limit: int = MOST_LISTED) -> FlowIndex:
        """Return the ids of all flows that match."""
        made = self._condition(filter)
        revision = self.revision()
        sql = f"select id, started, tokens_in, tokens_out from flow where {made.sql} order by started desc, id desc"
        found = self._ask(made, sql, made.values)
        came, went = [each[2] for each in found if each[2] is not None], [each[3] for each in found if each[3] is not None]
        return FlowIndex(
            revision=revision,
            ids=[each[0] for each in found[:limit]],
            started=[each[1] for each in found[:limit]],
            total=len(found),
            tokens_in=sum(came) if came else None,
            tokens_out=sum(went) if went else None,
            unseen=max(0, self.unindexed() - MOST_UNINDEXED) if made.has_words else 0,
        )

    def newest(self, filter: Node | str = _EVERYTHING) -> FlowRow | None:
        """Return the flow that began last of those that match."""
        rows = self.flows(filter, limit=1).rows
        return rows[0] if rows else None

    def flow(self, id: int) -> FlowContent | None:
        """Return one flow with its content; None: it is not there."""
        with self._asking():
            return content_of(self._database, id, self._row)

    def pieces(self, id: int, *, request: int = 0, response: int = 0) -> tuple[list[StoredPiece], list[StoredPiece]]:
        """Return the pieces of a flow, of the request and of the response, without the first so many of each: what has come since."""
        with self._asking():
            return _pieces(self._database, id, 0, request), _pieces(self._database, id, 1, response)

    # --- what changes

    def revision(self) -> int:
        """Return the number of the last commit."""
        with self._asking():
            return get_meta(self._database, "revision")

    def changes(self, since: int, filter: Node | str = _EVERYTHING, *, limit: int = 500) -> Changes:
        """Return what was written after revision `since`."""
        made = self._condition(filter)
        sql = f"select ({made.sql}), {_COLUMNS} from flow where revision > ? order by revision, id limit ?"
        found = self._ask(made, sql, [*made.values, since, limit + 1])
        has_more = len(found) > limit
        if has_more and found[-1][2] == found[0][2]:
            # one commit wrote more than `limit`: all of it, since a revision is given whole
            sql = f"select ({made.sql}), {_COLUMNS} from flow where revision = ? order by id"
            found = self._ask(made, sql, [*made.values, found[0][2]])
        elif has_more:
            last = found[-1][2]
            found = [each for each in found if each[2] != last]
        revision = max((each[2] for each in found), default=since)
        rows = [self._row(each[1:]) for each in found if each[0]]
        return Changes(int(revision), rows, [int(each[1]) for each in found if not each[0]], has_more)

    def wait(self, timeout: float) -> bool:
        """Wait until something may have been written since the last call, at most `timeout` seconds; tell whether it may."""
        return self.attach().wait(timeout)

    def attach(self) -> Attachment:
        """Have writers wake this reader from now on. The attachment has a `fileno` to wait for, and is closed with the reader."""
        if self._attachment is None:
            self._attachment = Attachment(self.path)
        return self._attachment

    # --- sums

    def facets(self, filter: Node | str = _EVERYTHING) -> Facets:
        """Return counts and sums over the flows that match."""
        made = self._condition(filter)
        flags = ("llm", "stream", "ws", "failed", "blocked", "cut", "tunnel", "open")
        sums = ", ".join(f"sum({self._condition(f'is:{flag}').sql})" for flag in flags)
        sql = (
            f"select count(*), count(provider), sum(provider is not null and tokens_in is null and tokens_out is null), sum(tokens_in), "
            f"sum(tokens_out), sum(tokens_cached), sum(request_bytes), sum(response_bytes), min(started), max(started), {sums} "
            f"from flow where {made.sql}"
        )
        (all_,) = self._ask(made, sql, made.values)
        return Facets(
            flows=all_[0],
            views={flag: count or 0 for flag, count in zip(flags, all_[10:], strict=True)},
            hosts=self._facet(made, "host"),
            programs=self._facet(made, "program"),
            models=self._facet(made, "model"),
            calls=all_[1],
            uncounted=all_[2] or 0,
            tokens_in=all_[3],
            tokens_out=all_[4],
            tokens_cached=all_[5],
            request_bytes=all_[6] or 0,
            response_bytes=all_[7] or 0,
            first=all_[8],
            last=all_[9],
        )

    def activity(self, since: float, step: float) -> list[Activity]:
        """Return what began since then, by steps of so many seconds; steps without a flow are left out."""
        failed = self._condition("is:error or is:blocked")
        is_call = f"provider is not null and not ({failed.sql})"
        sql = (
            f"select cast((started - ?) / ? as integer) as step, count(*), sum({is_call}), sum({failed.sql}) "
            "from flow where started >= ? group by step order by step"
        )
        return [Activity(*values) for values in self._ask(None, sql, [since, step, since])]

    def _facet(self, made: Condition, column: str) -> list[Facet]:
        sql = f"select {column}, count(*) from flow where ({made.sql}) and {column} != '' group by {column} order by 2 desc, 1 limit ?"
        return [Facet(value, count) for value, count in self._ask(made, sql, [*made.values, MOST_FACETS])]

    def sessions(self) -> list[SessionRow]:
        """Return the runs that wrote here, newest first."""
        columns = SessionRow.__struct_fields__[:-1]
        found = []
        for values in self._ask(None, f"select {', '.join(columns)} from session order by id desc", []):
            row = dict(zip(columns, values, strict=True))
            found.append(SessionRow(**row, is_live=row["ended"] is None and is_alive(row["pid"], row["began"])))
        return found

    def used_bytes(self) -> int:
        """Return how many bytes of the file are used."""
        with self._asking():
            (pages,), (free,), (size,) = (self._database.execute(f"pragma {name}").fetchone() for name in _USED)
            return int((pages - free) * size)

    def unindexed(self) -> int:
        """Return how many flows no word table has."""
        return int(self._ask(None, "select count(*) from flow where words = 0", [])[0][0])

    # --- search

    def search(self, words: str, filter: Node | str = _EVERYTHING, *, limit: int = 50) -> Found:
        """Return the newest flows that have these words and match, each with a line of its text."""
        wanted = parse_filter(words)
        also = parse_filter(filter) if isinstance(filter, str) else filter
        page = self.flows(And((wanted, also)), limit=limit)
        texts = [text for text in words_of(words) if text not in ("and", "or", "not")]
        hits = []
        for row in page.rows:
            content = self.flow(row.id)
            hits.append(Hit(row, *_snippet("" if content is None else content.all_text(), texts)))
        return Found(hits, max(0, self.unindexed() - MOST_UNINDEXED))

    # --- how it is asked

    def _condition(self, filter: Node | str) -> Condition:
        return condition(parse_filter(filter) if isinstance(filter, str) else filter, self._word_tables(), self._vanished())

    def _word_tables(self) -> tuple[str, ...]:
        with self._asking():
            found = {name for (name,) in self._database.execute("select name from sqlite_master where type = 'table'")}
        return tuple(name for name in WORD_TABLES if name in found)

    def _ask(self, made: Condition | None, sql: str, values: Sequence[float | str]) -> list[tuple]:  # type: ignore[type-arg]
        with self._asking():
            if made is not None and (made.tests or made.patterns):
                self._define(made)
            return self._database.execute(sql, values).fetchall()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Bound the time of what is asked, and say what SQLite says in our words."""
        is_inner = self._is_asking
        if not is_inner:
            self._until = time.monotonic() + self._seconds
        self._is_asking = True
        try:
            yield
        except sqlite3.OperationalError as error:
            if "interrupted" in str(error):
                raise StoreError(f"{self.path} was searched for {self._seconds:g} s, and not to its end; narrow the filter") from error
            raise StoreError(f"{self.path} cannot be read: {error}") from error
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self.path} cannot be read: {error}") from error
        finally:
            self._is_asking = is_inner

    def _define(self, made: Condition) -> None:
        tests = made.tests
        patterns = [text_test(node) for node in made.patterns]

        def content(id: int, number: int) -> int:
            found = self._content_of(id)
            return int(found is not None and tests[number](found))

        def match(text: str | None, number: int) -> int | None:
            return None if text is None else int(patterns[number](text))

        self._last = None
        self._database.create_function("soth_content", 2, content)
        self._database.create_function("soth_match", 2, match)

    def _content_of(self, id: int) -> FlowContent | None:
        if self._last is not None and self._last[0] == id:
            return self._last[2]
        found = content_of(self._beside, id, self._row)
        self._last = None if found is None else (id, found.row.revision, found)
        return found

    def _is_late(self) -> int:
        return int(time.monotonic() > self._until)

    def _row(self, values: tuple) -> FlowRow:  # type: ignore[type-arg]
        row = FlowRow(*values)
        if row.is_open and row.session in self._vanished():
            return msgspec.structs.replace(row, state=LOST)
        return row

    def _vanished(self) -> frozenset[int]:
        """Return the sessions that have gone without a goodbye."""
        now = time.monotonic()
        if now - self._checked > 1.0 or self._checked == 0.0:
            self._checked = now
            with self._asking():
                rows = self._beside.execute("select id, pid, began from session where ended is null").fetchall()
            self._lost_sessions = frozenset(id for id, pid, began in rows if not is_alive(pid, began))
        return self._lost_sessions


_USED = ("page_count", "freelist_count", "page_size")


def _url(scheme: str, host: str, port: int, path: str) -> str:
    if not scheme:
        return format_host_port(host, port)
    if port == {"https": 443, "http": 80}.get(scheme):
        return f"{scheme}://{f'[{host}]' if ':' in host else host}{path}"
    return f"{scheme}://{format_host_port(host, port)}{path}"


def _pieces(database: sqlite3.Connection, id: int, side: int, first: int) -> list[StoredPiece]:
    low, end = piece_id(id, side, first), piece_id(id, side, 0) + (1 << SIDE_BIT)
    found = database.execute("select data from piece where id >= ? and id < ? order by id", (low, end))
    try:
        return [decode_piece(data) for (data,) in found]
    except ValueError as error:
        raise StoreError(f"flow {id} cannot be read: {error}") from error


def _plain_row(values: tuple) -> FlowRow:  # type: ignore[type-arg]
    return FlowRow(*values)


def content_of(
    database: sqlite3.Connection,
    id: int,
    row_of: Callable[[tuple], FlowRow] = _plain_row,  # type: ignore[type-arg]
) -> FlowContent | None:
    """Return a flow with its content, read through `database`; None: it is not there. `StoreError` if it cannot be read."""
    found = database.execute(f"select detail, {_COLUMNS} from flow where id = ?", (id,)).fetchone()
    if found is None:
        return None
    try:
        detail = FlowDetail() if found[0] is None else decode_record(found[0], FlowDetail)
    except ValueError as error:
        raise StoreError(f"flow {id} cannot be read: {error}") from error
    return FlowContent(row_of(found[1:]), detail, Side(_pieces(database, id, 0, 0)), Side(_pieces(database, id, 1, 0)))


def _snippet(text: str, words: list[str]) -> tuple[str, str, str]:
    """Return the line in which the first of the words is found, around it."""
    folded = text.lower()
    for word in words:
        at = folded.find(word)
        if at >= 0 and len(folded) == len(text):
            start = max(text.rfind("\n", 0, at) + 1, at - 60)
            line_end = text.find("\n", at)
            end = min(len(text) if line_end < 0 else line_end, at + len(word) + 100)
            return text[start:at], text[at : at + len(word)], text[at + len(word) : end]
    return "", "", ""


def all_rows(reader: StoreReader, filter: Node | str = _EVERYTHING) -> Iterator[FlowRow]:
    """Yield every flow that matches, newest first, page by page."""
    before = None
    while True:
        page = reader.flows(filter, before=before)
        yield from page.rows
        before = page.older
        if before is None:
            return
