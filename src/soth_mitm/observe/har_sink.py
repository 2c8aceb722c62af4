"""`HarSink`: writes flows to a HAR file as they end."""

import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path

from soth_mitm.observe.event_sink import EventSink, SinkInfo
from soth_mitm.observe.flow_call import call_of
from soth_mitm.observe.flow_event import FlowEvent
from soth_mitm.observe.flow_gathering import FlowGathering
from soth_mitm.observe.flow_record import FlowUpdate
from soth_mitm.observe.har import END, encoded_entry, har_start, is_exchange
from soth_mitm.observe.har_flow import har_flow
from soth_mitm.observe.masking import Masker
from soth_mitm.observe.sink_file import SinkFile

MOST_OPEN_OCTETS = 256 << 20
"""Bytes of content that are held of flows that have not ended, all together."""


class HarSink(EventSink):
    """Writes each flow that has ended to a HAR 1.2 file, in the order of their ends (docs/sinks.md).

    `path` is made anew, for its owner only. It is valid JSON whenever nothing is written to it at that moment. `content` is how many bytes
    of each body are kept, as sent and decoded. `tunnels`: also what was not intercepted, and refused CONNECTs. `most_bytes` is how long
    the file may get; flows beyond are left out and counted. `mask` are more names of what is masked, `unmasked` masks nothing.

    What cannot be written is counted (`lost`, `write_errors`, `last_error`), and never harms the proxy.
    """

    name = "har"
    flows = True
    messages = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        content: int = 1 << 20,
        tunnels: bool = False,
        most_bytes: int | None = None,
        mask: Iterable[str] = (),
        unmasked: bool = False,
    ) -> None:
        if content < 0:
            raise ValueError(f"content must be 0 or more bytes, not {content!r}")
        if most_bytes is not None and most_bytes < 1024:
            raise ValueError(f"most_bytes must be 1024 or more, or None, not {most_bytes!r}")
        self.path = Path(path)
        self.content = content
        self.lost = 0
        """Flows that could not be written."""
        self.left_out = 0
        """Flows that were not written since the file was as long as it may be."""
        self.dropped_updates = 0
        """Updates of flows that did not reach the sink, since the proxy's queue for it was full."""
        self._tunnels = tunnels
        self._most_bytes = most_bytes
        self._masker = Masker(mask, key=secrets.token_bytes(32), unmasked=unmasked)
        self._gathering = FlowGathering(MOST_OPEN_OCTETS)
        self._file: SinkFile | None = None
        self._end = 0
        """Where the next entry goes: before what stands behind the last one."""
        self._is_first = True

    @property
    def write_errors(self) -> int:
        """Writes that failed."""
        return 0 if self._file is None else self._file.errors

    @property
    def last_error(self) -> str | None:
        """What the last of them was, in words."""
        return None if self._file is None else self._file.last_error

    def open(self, info: SinkInfo) -> None:
        """Make the file, an archive without entries."""
        self._file = SinkFile(self.path)
        start = har_start(info.version)
        self._end = len(start)
        self._file.begin(start + END)

    def accept(self, batch: Sequence[FlowEvent | FlowUpdate]) -> None:
        """Write the flows that have ended."""
        ended = [self._gathering.add(update) for update in batch if isinstance(update, FlowUpdate)]
        self._write([flow for flow in ended if flow is not None])

    def dropped(self, count: int) -> None:
        """Count what did not reach the sink."""
        self.dropped_updates += count

    def close(self, timeout: float) -> None:
        """Write flows that are still open, as far as they are known, and close the file."""
        if self._file is not None:
            self._write(self._gathering.rest())
            self._file.close()

    def _write(self, flows: list[FlowUpdate]) -> None:
        file = self._file
        entries: list[bytes] = []
        for flow in flows:
            call = call_of(flow, limit=self.content)
            made = har_flow(flow, self._masker, limit=self.content, call=None if call is None else call.as_dict())
            if is_exchange(made) or self._tunnels:
                entries.append(encoded_entry(made))
        if file is None or not entries:
            return
        if self._most_bytes is not None:
            room = self._most_bytes - self._end - len(END)
            fitting = 0
            for entry in entries:
                room -= len(entry) + 2
                if room < 0:
                    break
                fitting += 1
            self.left_out += len(entries) - fitting
            entries = entries[:fitting]
            if not entries:
                return
        data = (b"\n" if self._is_first else b",\n") + b",\n".join(entries)
        if file.write(data + END, at=self._end):
            self._end += len(data)
            self._is_first = False
            return
        self.lost += len(entries)
        # what stood there was written over
        file.take_back(self._end)
        file.write(END)
