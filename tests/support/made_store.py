"""A flow store that a sink has written, or writes, with made flows: `with MadeStore(folder) as store: store.add(*updates)`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from soth_mitm.observe import FlowUpdate, SqliteSink
from support.made_flows import BEGAN, sink_info


class MadeStore:
    """Writes what it is given at once, as a proxy that lives; from the end of the block on it has ended in order."""

    def __init__(self, folder: Path, *, name: str = "flows.db", **named: Any) -> None:
        self.path = folder / name
        self.began = time.time()
        self._sink = SqliteSink(self.path, min_free_bytes=0, **({"full_text": "always"} | named))
        self._sink.open(sink_info(pid=os.getpid(), started=self.began))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._sink.close(10)

    def add(self, *updates: FlowUpdate) -> None:
        """Write these in one commit."""
        self._sink.accept(updates)

    def add_each(self, updates: Iterable[FlowUpdate]) -> None:
        """Write each in a commit of its own."""
        for update in updates:
            self.add(update)

    def drop(self, count: int) -> None:
        """So many updates did not fit into the queue, as the next write says."""
        self._sink.dropped(count)


def at(update: FlowUpdate, started: float) -> FlowUpdate:
    """Return `update` of a flow that began then."""
    return msgspec.structs.replace(update, record=msgspec.structs.replace(update.record, started=started))


def lately(updates: Iterable[FlowUpdate], newest: int) -> list[FlowUpdate]:
    """Return made updates as of flows of the last minutes: that with the number `newest` began now."""
    moved = time.time() - BEGAN - newest
    return [at(update, update.record.started + moved) for update in updates]
