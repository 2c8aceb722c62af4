"""Which flows the list has, newest first, and their lines as far as they were read. It draws nothing and waits for nothing."""

import bisect
from collections.abc import Iterable

from soth_mitm.views.source import Changes, FlowLine, Index

LINES_KEPT = 4000
"""Lines that are kept; others are read again when they are in sight."""


class Listing:
    """The flows that a filter finds. Rows count from 0, the newest flow."""

    def __init__(self) -> None:
        self.is_read = False
        """Whether it has taken an index."""
        self.revision = 0
        self.filter = ""
        # oldest first, so that a new flow goes to the end
        self._keys: list[tuple[float, int]] = []
        self._started: dict[int, float] = {}
        self._lines: dict[int, FlowLine] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def id_at(self, row: int) -> int | None:
        """Return the flow of a row; None: there is none."""
        return self._keys[len(self._keys) - 1 - row][1] if 0 <= row < len(self._keys) else None

    def line_at(self, row: int) -> FlowLine | None:
        """Return the line of a row, None while it has not been read."""
        id = self.id_at(row)
        return None if id is None else self._lines.get(id)

    def line(self, id: int) -> FlowLine | None:
        """Return the line of a flow, None while it has not been read."""
        return self._lines.get(id)

    def row_of(self, id: int | None) -> int | None:
        """Return the row of a flow; None: the filter does not find it."""
        started = None if id is None else self._started.get(id)
        if id is None or started is None:
            return None
        return len(self._keys) - 1 - bisect.bisect_left(self._keys, (started, id))

    def missing(self, first: int, end: int) -> list[int]:
        """Return the flows of these rows whose lines have not been read."""
        ids = (self.id_at(row) for row in range(max(0, first), min(end, len(self._keys))))
        return [id for id in ids if id is not None and id not in self._lines]

    def replace(self, filter_text: str, index: Index) -> None:
        """Take all flows of a filter."""
        self.is_read, self.revision, self.filter = True, index.revision, filter_text
        self._keys = sorted(zip(index.started, index.ids, strict=True))
        self._started = dict(zip(index.ids, index.started, strict=True))
        # what changed meanwhile is read again
        self._lines = {}

    def apply(self, changes: Changes) -> bool:
        """Take what has changed; tell whether that is anything."""
        self.revision = changes.revision
        for id in changes.others:
            self._remove(id)
        self._put(changes.lines, is_new=True)
        return bool(changes.lines or changes.others)

    def fill(self, lines: Iterable[FlowLine], asked: Iterable[int]) -> None:
        """Take lines that were missing; those of `asked` that did not come are not kept any more."""
        found = list(lines)
        here = {line.id for line in found}
        for id in asked:
            if id not in here:
                self._remove(id)
        self._put(found, is_new=False)

    def _put(self, lines: Iterable[FlowLine], *, is_new: bool) -> None:
        for line in lines:
            if line.id not in self._started:
                if not is_new:
                    continue
                self._started[line.id] = line.started
                bisect.insort(self._keys, (line.started, line.id))
            self._lines.pop(line.id, None)
            self._lines[line.id] = line
        while len(self._lines) > LINES_KEPT:
            del self._lines[next(iter(self._lines))]

    def _remove(self, id: int) -> None:
        started = self._started.pop(id, None)
        self._lines.pop(id, None)
        if started is not None:
            del self._keys[bisect.bisect_left(self._keys, (started, id))]
