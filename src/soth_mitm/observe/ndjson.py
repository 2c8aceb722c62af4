"""`NdjsonSink`: the event log, one line of JSON for each event, and `EventLog`, which reads it.

Two runs of the same traffic give the same lines, apart from what differs between them by its nature: see `comparable`.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from soth_mitm.observe.event_sink import EventSink, SinkInfo
from soth_mitm.observe.flow_event import FlowEvent, FlowEventKind
from soth_mitm.observe.flow_record import FlowUpdate
from soth_mitm.observe.masking import Masker
from soth_mitm.observe.sink_file import SinkFile

SCHEMA = "soth-mitm-event-log-v2"
INDEX_COLUMNS = tuple("sequence_id flow_id flow_sequence_id kind protocol stream_key segment_id byte_offset line_bytes".split())
# Attributes that are times: no two runs have the same
_TIMES = "_us"
# Attributes that are targets of requests
_TARGETS = ("path",)
_INDEX_UNFIT = re.compile(r"[\t\r\n\\]")
_KINDS = frozenset(map(str, FlowEventKind))

_encode = msgspec.json.Encoder().encode


class _Line(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A record, in the order of its fields."""

    schema: str
    sequence_id: int
    unix_us: int | msgspec.UnsetType
    flow_id: int
    flow_sequence_id: int
    kind: FlowEventKind
    protocol: str
    stream_key: str
    connection_id: str
    client_addr: str
    server_host: str
    server_port: int
    worker: int
    attributes: dict[str, str | int]


class NdjsonSink(EventSink):
    """Writes events to a file, a line of JSON each: the event log, version 2 (docs/sinks.md).

    `path` is made anew, for its owner only, and so are its further segments, `PATH.part00001` and so on, which begin where a line would
    make one longer than `rotate_bytes`; None: there is one. `index` is a table of where each line stands, `PATH.index.tsv` with True.
    `clock` adds `unix_us`, and keeps attributes that are times. `kinds` are those to be written. `flush_every` lines are gathered before
    they are written; with 1, what the sink is given is written at once. `mask` are more names of what is masked in targets.

    What cannot be written is counted (`lost`, `write_errors`, `last_error`), and the log stays readable: it never harms the proxy.
    """

    name = "ndjson"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: bool = False,
        rotate_bytes: int | None = None,
        index: bool | str | os.PathLike[str] = True,
        kinds: Iterable[FlowEventKind | str] = tuple(FlowEventKind),
        flush_every: int = 1,
        mask: Iterable[str] = (),
        unmasked: bool = False,
    ) -> None:
        if rotate_bytes is not None and rotate_bytes < 1:
            raise ValueError(f"rotate_bytes must be 1 or more bytes, or None, not {rotate_bytes!r}")
        if flush_every < 1:
            raise ValueError(f"flush_every must be 1 or more lines, not {flush_every!r}")
        self.path = Path(path)
        self.kinds = frozenset(map(FlowEventKind, kinds))
        self.lost = 0
        """Events that could not be written."""
        self.dropped_events = 0
        """Events that did not reach the sink, since the proxy's queue for it was full."""
        self._clock = clock
        self._rotate_bytes = rotate_bytes
        self._index_path: Path | None = None
        if index is True:
            self._index_path = self.path.with_name(self.path.name + ".index.tsv")
        elif index is not False:
            self._index_path = Path(index)
        self._flush_every = flush_every
        # without tags, which would be others in each run
        self._masker = Masker(mask, key=None, unmasked=unmasked)
        self._segments: list[SinkFile] = []
        self._index: SinkFile | None = None
        self._pending: list[tuple[FlowEvent, bytes]] = []

    @property
    def write_errors(self) -> int:
        """Writes that failed."""
        return sum(file.errors for file in self._files())

    @property
    def last_error(self) -> str | None:
        """What the last of them was, in words."""
        return next((file.last_error for file in reversed(self._files()) if file.last_error), None)

    def _files(self) -> list[SinkFile]:
        return [*self._segments, *([] if self._index is None else [self._index])]

    def open(self, info: SinkInfo) -> None:
        """Make the files, and remove segments of an earlier log of this name."""
        for old in segments_of(self.path)[1:]:
            old.unlink()
        self._segments = [SinkFile(self.path)]
        if self._index_path is not None:
            try:
                self._index = SinkFile(self._index_path)
                self._index.begin(("\t".join(INDEX_COLUMNS) + "\n").encode())
            except OSError:
                self._segments[0].close()
                raise

    def accept(self, batch: Sequence[FlowEvent | FlowUpdate]) -> None:
        """Write the events."""
        self._pending += ((event, self._line(event)) for event in batch if isinstance(event, FlowEvent))
        if len(self._pending) >= self._flush_every:
            self._flush()

    def dropped(self, count: int) -> None:
        """Count what did not reach the sink."""
        self.dropped_events += count

    def close(self, timeout: float) -> None:
        """Write what is left, and close the files."""
        self._flush()
        for file in self._files():
            file.close()

    def _line(self, event: FlowEvent) -> bytes:
        attributes = {
            name: self._masker.path(value) if name in _TARGETS and isinstance(value, str) else value
            for name, value in sorted(event.attributes.items())
            if self._clock or not name.endswith(_TIMES)
        }
        line = _Line(
            schema=SCHEMA,
            sequence_id=event.sequence_id,
            unix_us=event.unix_us if self._clock else msgspec.UNSET,
            flow_id=event.flow_id,
            flow_sequence_id=event.flow_sequence_id,
            kind=event.kind,
            protocol=event.protocol,
            stream_key=event.stream_key,
            connection_id=event.connection_id,
            client_addr=event.client_addr,
            server_host=event.server_host,
            server_port=event.server_port,
            worker=event.worker,
            attributes=attributes,
        )
        return _encoded(line) + b"\n"

    def _flush(self) -> None:
        """Write what is pending, as many lines at once as fit into a segment."""
        pending, self._pending = self._pending, []
        begin = 0
        while begin < len(pending):
            segment = self._segments[-1]
            size = segment.size
            end = begin
            while end < len(pending) and not self._is_full(size, len(pending[end][1])):
                size += len(pending[end][1])
                end += 1
            if end == begin:
                if not self._begin_segment():
                    self.lost += len(pending) - begin
                    return
                continue
            self._write(segment, pending[begin:end])
            begin = end

    def _is_full(self, size: int, more: int) -> bool:
        return self._rotate_bytes is not None and size > 0 and size + more > self._rotate_bytes

    def _begin_segment(self) -> bool:
        number = len(self._segments)
        try:
            segment = SinkFile(_segment(self.path, number))
        except OSError as error:
            self._segments[-1].failed(error)
            return False
        self._segments[-1].close()
        self._segments.append(segment)
        return True

    def _write(self, segment: SinkFile, lines: list[tuple[FlowEvent, bytes]]) -> None:
        offset = segment.size
        if not segment.write(b"".join(line for _, line in lines)):
            self.lost += len(lines)
            return
        if self._index is None:
            return
        rows: list[str] = []
        for event, line in lines:
            key = _INDEX_UNFIT.sub(lambda found: found[0].encode("unicode_escape").decode(), event.stream_key)
            row = (event.sequence_id, event.flow_id, event.flow_sequence_id, event.kind, event.protocol, key)
            rows.append("\t".join(map(str, (*row, len(self._segments) - 1, offset, len(line)))) + "\n")
            offset += len(line)
        self._index.write(_utf8("".join(rows)))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _encoded(line: _Line) -> bytes:
    try:
        return _encode(line)
    except UnicodeEncodeError:
        # half of a surrogate pair, which a peer may have sent
        return _encode(_without_surrogates(msgspec.to_builtins(line)))


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _utf8(value).decode()
    return {name: _without_surrogates(each) for name, each in value.items()} if isinstance(value, dict) else value


def _segment(path: Path, number: int) -> Path:
    return path if number == 0 else path.with_name(f"{path.name}.part{number:05d}")


def segments_of(path: str | os.PathLike[str]) -> list[Path]:
    """Return the files of the log `path` in order; the first one is `path` itself, which need not be there."""
    first = Path(path)
    found = [first]
    for number in count(1):
        if not (segment := _segment(first, number)).is_file():
            return found
        found.append(segment)
    raise AssertionError("count() does not end")


class EventLog:
    """Reads an event log. It is iterated for its events, in order, once or more often.

    After that, `torn` is how many bytes of a line without an end stand at the end of the last segment (a writer was killed, or writes at
    this moment), and `missing` how many events are not in it, by the numbers of those that are: of kinds that were not asked for, dropped,
    or not written. `ValueError` names the file and the line that is no event; `OSError` the file that cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.torn = 0
        self.missing = 0

    def __iter__(self) -> Iterator[FlowEvent]:
        self.torn = self.missing = 0
        last = 0
        segments = segments_of(self.path)
        for segment in segments:
            with open(segment, "rb") as file:
                for number, line in enumerate(file, 1):
                    if not line.endswith(b"\n"):
                        if segment is not segments[-1]:
                            raise ValueError(f"{segment}:{number}: the line has no end, and is not the last one of the log")
                        self.torn = len(line)
                        break
                    event = _event_of(line, f"{segment}:{number}")
                    if event is None:
                        continue
                    self.missing += max(0, event.sequence_id - last - 1)
                    last = event.sequence_id
                    yield event


def _event_of(line: bytes, place: str) -> FlowEvent | None:
    """Return the event of a line; None: it is of a kind that is not known, and is skipped."""
    try:
        record = msgspec.json.decode(line)
        if record["schema"] != SCHEMA:
            raise ValueError(f"the schema is {record['schema']!r}, and {SCHEMA!r} is read")
        if record["kind"] not in _KINDS:
            return None
        return msgspec.convert({"unix_us": 0} | record, FlowEvent)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{place}: no event: {error}") from error


def comparable(events: Iterable[FlowEvent]) -> list[dict[str, Any]]:
    """Return events so that those of two runs of the same traffic are equal.

    Connections and flows are numbered in the order in which they appear, the client's port is left out, and so are `sequence_id` and times.
    Events of each connection stand together, as those of several at once come in an order that no run repeats; so do, in a connection,
    those of each flow.
    """
    connections: dict[str, int] = {}
    flows: dict[int, int] = {0: 0}
    found: list[tuple[int, int, int, dict[str, Any]]] = []
    for event in events:
        connection = connections.setdefault(event.connection_id, len(connections) + 1)
        flow = flows.setdefault(event.flow_id, len(flows))
        record = {
            "kind": str(event.kind),
            "connection": connection,
            "flow": flow,
            "flow_sequence_id": event.flow_sequence_id,
            "protocol": event.protocol,
            "stream_key": event.stream_key.replace(f"flow:{event.flow_id}:", f"flow:{flow}:"),
            "client_host": event.client_addr if event.client_addr.startswith("unix:") else event.client_addr.rpartition(":")[0],
            "server_host": event.server_host,
            "server_port": event.server_port,
            "attributes": {name: value for name, value in sorted(event.attributes.items()) if not name.endswith(_TIMES)},
        }
        found.append((connection, flow, event.flow_sequence_id, record))
    return [record for *_, record in sorted(found, key=lambda each: each[:3])]
