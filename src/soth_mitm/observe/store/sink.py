"""`SqliteSink`: keeps flows in an SQLite file."""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from soth_mitm.escaping import get_logger
from soth_mitm.observe.event_sink import EventSink, SinkInfo
from soth_mitm.observe.flow_event import FlowEvent
from soth_mitm.observe.flow_record import FlowUpdate
from soth_mitm.observe.masking import Masker
from soth_mitm.observe.store.writer import StoreLimits, StoreWriter

log = get_logger("soth_mitm.observe")

LEAST_BYTES = 1 << 20
"""The smallest `max_bytes`."""
IDLE_SECONDS = 2.0
"""Without anything to write, after which words are put into the word table."""
TIDY_SECONDS = 60.0
_TICK_SECONDS = 0.5
# of each second that words are worked at, the rest is pause
_BUSY_SHARE = 0.25


class SqliteSink(EventSink):
    """Keeps flows in the file at `path`, made if it is not there; several processes may write to one file.

    `max_bytes` and `max_age`, in seconds, bound what is kept: the oldest flows go. Nothing is written while fewer than `min_free_bytes` are
    free on the disk. `content` is how many bytes of each body are kept, without its content coding: of text, and of messages of gRPC; other
    bodies are kept by size only. `full_text` says when words are put into a table that searches are fast in: `idle`, when there was
    nothing to write for 2 s; `always`, with each write; `off`, never. Credentials are masked before they are written, those of `mask` as
    well (see `soth_mitm.observe.masking`); `unmasked` keeps them, and a warning says so at each start.

    `ValueError` says which argument is wrong. A file that cannot be used is a `StoreError` when the proxy starts.
    """

    name = "sqlite"
    flows = True
    messages = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = 1 << 30,
        max_age: float = 604_800.0,
        min_free_bytes: int = 256 << 20,
        full_text: Literal["idle", "always", "off"] = "idle",
        mask: Sequence[str] = (),
        unmasked: bool = False,
        content: int = 1 << 20,
        replayed: bool = False,
    ) -> None:
        if max_bytes < LEAST_BYTES:
            raise ValueError(f"max_bytes must be at least {LEAST_BYTES}, not {max_bytes}")
        if not max_age > 0:
            raise ValueError(f"max_age must be more than 0 seconds, not {max_age}")
        if min_free_bytes < 0:
            raise ValueError(f"min_free_bytes must be 0 or more, not {min_free_bytes}")
        if content < 0:
            raise ValueError(f"content must be 0 or more bytes, not {content}")
        if full_text not in ("idle", "always", "off"):
            raise ValueError(f'full_text must be "idle", "always" or "off", not {full_text!r}')
        # which says what is wrong with the names
        Masker(mask, key=bytes(16))
        self.path = Path(path)
        self.content = content
        self._limits = StoreLimits(max_bytes=max_bytes, max_age=max_age, min_free_bytes=min_free_bytes, content=content)
        self._full_text = full_text
        self._mask = tuple(mask)
        self._unmasked = unmasked
        self._replayed = replayed
        self._writer: StoreWriter | None = None
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._last_write = 0.0
        self._thread: threading.Thread | None = None

    def open(self, info: SinkInfo) -> None:
        """Open the file. `StoreError` says why it cannot be used."""
        self._writer = StoreWriter(self.path, info, self._limits, mask=self._mask, unmasked=self._unmasked, replayed=self._replayed)
        self._writer.tidy()
        if self._unmasked:
            log.warning("the flow store %s keeps credentials as they are sent (unmasked)", self.path)
        if self._full_text != "off" and not self._writer.has_words:
            log.warning("this SQLite has no FTS5: searches in %s read every flow", self.path)
        self._ending.clear()
        self._thread = threading.Thread(target=self._look_after, name="soth-mitm store", daemon=True)
        self._thread.start()

    def accept(self, batch: Sequence[FlowEvent | FlowUpdate]) -> None:
        """Write what has come, in one transaction."""
        updates = [each for each in batch if isinstance(each, FlowUpdate)]
        writer = self._writer
        if writer is None or not updates:
            return
        with self._lock:
            writer.write(updates)
            self._last_write = time.monotonic()
            if self._full_text == "always":
                while writer.index():
                    continue

    def dropped(self, count: int) -> None:
        """Note how many updates did not fit into the queue."""
        writer = self._writer
        if writer is not None:
            with self._lock:
                writer.drop(count)

    def close(self, timeout: float) -> None:
        """Say goodbye to the file."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(timeout)
        writer, self._writer = self._writer, None
        if writer is not None:
            with self._lock:
                writer.close()

    def _look_after(self) -> None:
        """Do what can wait, in a thread of its own, while there is nothing to write."""
        tidied = time.monotonic()
        pause = _TICK_SECONDS
        while not self._ending.wait(pause):
            writer = self._writer
            if writer is None:
                return
            pause = _TICK_SECONDS
            began = time.monotonic()
            with self._lock:
                if began - tidied >= TIDY_SECONDS:
                    tidied = began
                    writer.tidy()
                elif self._full_text == "idle" and began - self._last_write >= IDLE_SECONDS and writer.index():
                    pause = (time.monotonic() - began) * (1 / _BUSY_SHARE - 1)
