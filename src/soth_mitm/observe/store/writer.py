"""`StoreWriter`: puts updates of flows into a store, a transaction for each batch, and keeps the store within its bounds."""

import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from soth_mitm.errors import StoreError
from soth_mitm.escaping import get_logger
from soth_mitm.observe.event_sink import SinkInfo
from soth_mitm.observe.flow_record import FlowUpdate
from soth_mitm.observe.masking import Masker
from soth_mitm.observe.store.attached import Bell
from soth_mitm.observe.store.content import PieceCoder
from soth_mitm.observe.store.flow_row import LOST, OPEN
from soth_mitm.observe.store.flow_writing import INSERT_FLOW, FlowWriting
from soth_mitm.observe.store.liveness import is_alive
from soth_mitm.observe.store.retention import SHARE, expire_before, expire_oldest, expire_to, give_back, used_bytes
from soth_mitm.observe.store.schema import ID_BLOCK, open_for_writing
from soth_mitm.observe.store.side_writing import HeadMask
from soth_mitm.observe.store.word_index import index_slice, make_word_table

log = get_logger("soth_mitm.observe")

# After a write that found no room: seconds until the next one is tried
BACK_OFF = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
CHECK_SPACE_SECONDS = 1.0
# Expiring makes room within the file; it is not to take all there is because another program fills the disk
EXPIRE_FOR_SPACE_SECONDS = 60.0
_LARGEST_FLOW = 64 << 20


class StoreLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of a store."""

    max_bytes: int
    max_age: float
    """Seconds."""
    min_free_bytes: int
    content: int
    """Bytes of each body."""


class StoreWriter:
    """Writes the store at `path`, made if it is not there. One thread at a time. `StoreError` if it cannot be opened."""

    def __init__(
        self, path: Path, info: SinkInfo, limits: StoreLimits, *, mask: Sequence[str] = (), unmasked: bool = False, replayed: bool = False
    ) -> None:
        self._path = path
        self._limits = limits
        self._replayed = replayed
        self._database = open_for_writing(path)
        try:
            (key,) = self._database.execute("select value from meta where key = 'mask_key'").fetchone()
            self._masker = Masker(mask, key=key, unmasked=unmasked)
            self._heads = HeadMask(self._masker)
            self.has_words = make_word_table(self._database)
            self._session = self._begin(info)
        except (sqlite3.Error, ValueError, TypeError) as error:
            self._database.close()
            if isinstance(error, sqlite3.Error):
                raise StoreError(f"{path} cannot be used as a flow store: {error}") from error
            raise
        self._coder = PieceCoder()
        self._bell = Bell(path)
        self._open: dict[int, FlowWriting] = {}
        self._next_id = self._last_id = 0
        self.offered = self.stored = self.lost = self.expired = 0
        """Updates that came, were written, were lost; flows that were removed."""
        self._failures = 0
        self._blocked_until = 0.0
        self._is_short_of_space = False
        self._space_checked = 0.0
        self._expired_for_space = -EXPIRE_FOR_SPACE_SECONDS
        self._is_told = False

    def _begin(self, info: SinkInfo) -> int:
        database = self._database
        database.execute("begin immediate")
        for id, pid, began in database.execute("select id, pid, began from session where ended is null").fetchall():
            if not is_alive(pid, began):
                self._lose(id)
        listening = ", ".join(info.listening)
        made = database.execute(
            "insert into session(worker, pid, began, version, listening) values (?, ?, ?, ?, ?)",
            (info.worker, info.pid, info.started, info.version, listening),
        )
        database.execute("commit")
        assert made.lastrowid is not None
        return made.lastrowid

    def _lose(self, session: int) -> None:
        """What a session left open is not going to end; readers are told."""
        revision = self._next_revision()
        self._database.execute("update flow set state = ?, revision = ? where session = ? and state = ?", (LOST, revision, session, OPEN))

    def _next_revision(self) -> int:
        sql = "update meta set value = value + 1 where key = 'revision' returning value"
        return int(self._database.execute(sql).fetchall()[0][0])

    def drop(self, count: int) -> None:
        """So many updates were lost before they came here."""
        self.offered += count
        self.lost += count

    def write(self, updates: Sequence[FlowUpdate]) -> None:
        """Write a batch, whole or not at all; what cannot be written is lost and counted."""
        self.offered += len(updates)
        touched = self._take(updates)
        if not self._has_room():
            self._fail(touched, len(updates))
            return
        try:
            self._commit(touched, len(updates))
        except sqlite3.OperationalError as error:
            self._roll_back()
            self._fail(touched, len(updates))
            wait = BACK_OFF[min(self._failures, len(BACK_OFF) - 1)]
            self._failures += 1
            self._blocked_until = time.monotonic() + wait
            self._tell(f"{error}; it is tried again after {wait:g} s")
        except sqlite3.DatabaseError:
            self._roll_back()
            self._fail(touched, len(updates))
            raise
        else:
            self._failures = 0
            self._is_told = False
            self._bell.ring()
            self._keep_bounds()

    def _take(self, updates: Sequence[FlowUpdate]) -> dict[int, FlowWriting]:
        touched: dict[int, FlowWriting] = {}
        for update in updates:
            flow_id = update.record.flow_id
            writing = self._open.get(flow_id)
            if writing is None:
                most = min(_LARGEST_FLOW, self._limits.max_bytes // 8)
                writing = FlowWriting(self._masker, self._heads, self._coder, content=self._limits.content, most=most)
                self._open[flow_id] = writing
            writing.take(update)
            touched[flow_id] = writing
        for flow_id, writing in touched.items():
            if writing.is_over:
                del self._open[flow_id]
        return touched

    def _commit(self, touched: dict[int, FlowWriting], updates: int) -> None:
        database = self._database
        database.execute("begin immediate")
        revision = self._next_revision()
        rows, pieces = [], []
        for writing in touched.values():
            if writing.id == 0:
                writing.id = self._new_id()
            pieces += writing.pieces()
            rows.append(writing.row(revision, self._session, replayed=self._replayed))
        database.executemany(INSERT_FLOW, rows)
        database.executemany("insert into piece values (?, ?)", pieces)
        counts = (self.offered, self.stored + updates, self.lost, self.expired, self._session)
        database.execute("update session set offered = ?, stored = ?, dropped = ?, expired = ? where id = ?", counts)
        database.execute("commit")
        self.stored += updates
        for writing in touched.values():
            writing.stored()

    def _new_id(self) -> int:
        if self._next_id == self._last_id:
            sql = "update meta set value = value + ? where key = 'next_id' returning value"
            (end,) = self._database.execute(sql, (ID_BLOCK,)).fetchall()[0]
            self._next_id, self._last_id = end - ID_BLOCK, end
        self._next_id += 1
        return self._next_id - 1

    def _roll_back(self) -> None:
        if self._database.in_transaction:
            self._database.execute("rollback")

    def _fail(self, touched: dict[int, FlowWriting], updates: int) -> None:
        self.lost += updates
        for writing in touched.values():
            writing.undo()
            if not writing.is_stored:
                writing.id = 0
        # the block may have been rolled back as well
        self._next_id = self._last_id = 0

    def _tell(self, why: str) -> None:
        if not self._is_told:
            self._is_told = True
            log.warning("the flow store %s takes nothing: %s (flows are lost meanwhile, and counted)", self._path, why)

    # --- bounds

    def _has_room(self) -> bool:
        """Tell whether writing may be tried now."""
        now = time.monotonic()
        if now < self._blocked_until:
            return False
        if now - self._space_checked >= CHECK_SPACE_SECONDS or self._space_checked == 0.0:
            self._space_checked = now
            self._is_short_of_space = self._find_space(now)
        return not self._is_short_of_space

    def _find_space(self, now: float) -> bool:
        """Tell whether the disk is too full, also after the oldest flows were removed."""
        if self._is_full():
            if now - self._expired_for_space >= EXPIRE_FOR_SPACE_SECONDS:
                self._expired_for_space = now
                try:
                    (flows,) = self._database.execute("select count(*) from flow").fetchone()
                    self.expired += expire_oldest(self._database, flows // SHARE)
                    give_back(self._database, all_of_it=True)
                except sqlite3.OperationalError as error:
                    self._roll_back()
                    log.warning("the flow store %s could not be shortened: %s", self._path, error)
            if self._is_full():
                self._tell(f"fewer than {self._limits.min_free_bytes} bytes are free on its disk")
                return True
        return False

    def _is_full(self) -> bool:
        if self._limits.min_free_bytes == 0:
            return False
        try:
            return shutil.disk_usage(self._path.parent).free < self._limits.min_free_bytes
        except OSError:
            # whether there is room is seen when it is written
            return False

    def _keep_bounds(self) -> None:
        if used_bytes(self._database) > self._limits.max_bytes:
            self._shorten(lambda: expire_to(self._database, self._limits.max_bytes))

    def _shorten(self, expire: Callable[[], int]) -> None:
        try:
            self.expired += expire()
        except sqlite3.OperationalError as error:
            self._roll_back()
            log.warning("the flow store %s could not be shortened: %s", self._path, error)

    def tidy(self) -> None:
        """Remove what is too old, and give back what is free; from time to time."""
        self._shorten(lambda: expire_before(self._database, time.time() - self._limits.max_age))
        give_back(self._database)

    def index(self) -> bool:
        """Put some flows into the word table; tell whether there were any."""
        if not self.has_words or time.monotonic() < self._blocked_until:
            return False
        try:
            return index_slice(self._database, self._limits.max_bytes) > 0
        except sqlite3.OperationalError as error:
            self._roll_back()
            log.warning("the words of flows could not be put into the store %s: %s", self._path, error)
            return False

    def close(self) -> None:
        """Say goodbye: no more is to come."""
        database = self._database
        try:
            database.execute("begin immediate")
            self._lose(self._session)
            counts = (time.time(), self.offered, self.stored, self.lost, self.expired, self._session)
            database.execute("update session set ended = ?, offered = ?, stored = ?, dropped = ?, expired = ? where id = ?", counts)
            # ids stay short if what is left of a block goes back
            database.execute("update meta set value = ? where key = 'next_id' and value = ?", (self._next_id, self._last_id))
            database.execute("commit")
        except sqlite3.OperationalError as error:
            self._roll_back()
            log.warning("the flow store %s could not be told that its writer ends: %s", self._path, error)
        self._bell.ring()
        self._bell.close()
        database.close()
