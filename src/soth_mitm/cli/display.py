"""Lines on standard output.

A thread writes them: a terminal that is slow, stopped or gone, or a disk that is full, holds up no request and touches no decision. What
cannot be written is counted.
"""

import os
import queue
import threading

from rich.console import Console
from rich.text import Text

from soth_mitm.escaping import get_logger, shown

Part = str | tuple[str, str]
"""A piece of a line, with the style that it is shown in."""

log = get_logger("soth_mitm.cli")

# Lines that wait for a terminal that takes none.
BACKLOG = 10_000
# How long the last lines may take at the end.
END_SECONDS = 2.0


class Display:
    """Shows lines, in order. Whatever a line holds, it stays one line: for those who grep, and so that no peer can forge another."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lines: queue.Queue[tuple[Part, ...] | None] = queue.Queue(BACKLOG)
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="soth-mitm display", daemon=True)
        self._thread.start()

    def say(self, *parts: Part) -> None:
        """Show a line, soon."""
        try:
            self._lines.put_nowait(parts)
        except queue.Full:
            self._lost += 1

    def close(self) -> None:
        """Show what waits, for a bounded time."""
        try:
            self._lines.put(None, timeout=END_SECONDS)
        except queue.Full:
            return
        self._thread.join(END_SECONDS)

    def _run(self) -> None:
        has_failed = False
        while (parts := self._lines.get()) is not None:
            if self._lost:
                lost, self._lost = self._lost, 0
                parts = (*parts, f"  ({lost} lines before this one could not be shown)")
            try:
                self._write(self._rendered(parts))
            except (OSError, ValueError) as error:
                # ValueError: the stream is closed
                self._lost += 1
                if not has_failed:
                    has_failed = True
                    log.warning("lines cannot be shown on standard output: %s; the proxy goes on without them", error)

    def _rendered(self, parts: tuple[Part, ...]) -> str:
        escaped = [shown(part) if isinstance(part, str) else (shown(part[0]), part[1]) for part in parts]
        with self._console.capture() as captured:
            self._console.print(Text.assemble(*escaped), soft_wrap=True)
        return captured.get()

    def _write(self, text: str) -> None:
        stream = self._console.file
        data = text.encode(getattr(stream, "encoding", None) or "utf-8", "backslashreplace")
        try:
            descriptor = stream.fileno()
        except OSError:
            # no file, but a buffer of whoever runs the command
            stream.write(data.decode(getattr(stream, "encoding", None) or "utf-8"))
            return
        # not through the stream: it would keep a line that failed, and a lock that the end of the interpreter wants
        while data and descriptor >= 0:
            data = data[os.write(descriptor, data) :]
