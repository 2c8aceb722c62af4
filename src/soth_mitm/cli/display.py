"""Lines on standard output, and the log on standard error.

A thread writes them: a terminal that is slow, stopped or gone, or a disk that is full, holds up no request and touches no decision. What
cannot be written is counted.
"""

import logging
import os
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Generic, TypeVar

from rich.console import Console
from rich.text import Text

from soth_mitm.escaping import get_logger, shown

T = TypeVar("T")
Part = str | tuple[str, str]
"""A piece of a line, with the style that it is shown in."""

log = get_logger("soth_mitm.cli")

# Lines that wait for a terminal that takes none.
BACKLOG = 10_000
# Records of the log, some with tracebacks, that wait for a reader of standard error.
LOG_BACKLOG = 1000
# How long the last lines may take at the end.
END_SECONDS = 2.0


class _Written(ABC, Generic[T]):
    """Items that a thread of that name writes to `stream`, in order. Where some are missing, a line says how many.

    One thread at a time may add items.
    """

    def __init__(self, stream: IO[str], name: str, backlog: int, what: str) -> None:
        self._stream = stream
        self._what = what
        self._items: queue.Queue[tuple[int, T | None]] = queue.Queue(backlog)
        """Each with the number of items before it that found no room; None ends the thread."""
        self._no_room = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @abstractmethod
    def _text(self, item: T) -> str:
        """Return what to write for `item`."""

    def _failed(self, error: Exception) -> None:
        """Say, once, that the stream takes nothing."""

    def _put(self, item: T) -> None:
        try:
            self._items.put_nowait((self._no_room, item))
            self._no_room = 0
        except queue.Full:
            self._no_room += 1

    def close(self) -> None:
        """Write what waits, for a bounded time."""
        try:
            self._items.put((self._no_room, None), timeout=END_SECONDS)
        except queue.Full:
            return
        self._thread.join(END_SECONDS)

    def _run(self) -> None:
        lost = 0
        has_failed = False
        item: T | None
        while True:
            no_room, item = self._items.get()
            lost += no_room
            try:
                if lost:
                    self._write(f"({lost} {self._what} could not be shown)\n")
                    lost = 0
                if item is None:
                    return
                self._write(self._text(item))
            except (OSError, ValueError) as error:
                # ValueError: the stream is closed
                if item is None:
                    return
                lost += 1
                if not has_failed:
                    has_failed = True
                    self._failed(error)

    def _write(self, text: str) -> None:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        data = text.encode(encoding, "backslashreplace")
        try:
            descriptor = self._stream.fileno()
        except OSError:
            # no file, but a buffer of the caller, such as a test
            self._stream.write(data.decode(encoding))
            return
        # not through the stream: it would keep a line that failed, and a lock that the end of the interpreter wants
        while data and descriptor >= 0:
            data = data[os.write(descriptor, data) :]


class Display(_Written[tuple[Part, ...]]):
    """Shows lines, in order. Whatever a line holds, it stays one line: it can be searched for, and no peer can forge another one."""

    def __init__(self, console: Console) -> None:
        super().__init__(console.file, "soth-mitm display", BACKLOG, "lines")
        self._console = console

    def say(self, *parts: Part) -> None:
        """Show a line, soon."""
        self._put(parts)

    def _text(self, item: tuple[Part, ...]) -> str:
        escaped = [shown(part) if isinstance(part, str) else (shown(part[0]), part[1]) for part in item]
        with self._console.capture() as captured:
            self._console.print(Text.assemble(*escaped), soft_wrap=True)
        return captured.get()

    def _failed(self, error: Exception) -> None:
        log.warning("lines cannot be shown on standard output: %s; the proxy goes on without them", error)


class _Log(_Written[str]):
    """The stream of a `logging.StreamHandler`, which formats and writes one record at a time."""

    def write(self, text: str) -> None:
        """Write a record, soon."""
        self._put(text)

    def flush(self) -> None:
        """Nothing waits in here that is not being written."""

    def _text(self, item: str) -> str:
        return item


@contextmanager
def logging_to(stream: IO[str]) -> Iterator[None]:
    """Write the log to `stream`, from warnings on."""
    written = _Log(stream, "soth-mitm log", LOG_BACKLOG, "records of the log")
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"))
    # where the loggers of the package, which escape, hand their records on to
    root = logging.root
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        written.close()
