"""A flow store as a `FlowSource`: read by a few connections at a time, and watched by a thread."""

import contextlib
import functools
import queue
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from soth_mitm.errors import StoreError
from soth_mitm.escaping import get_logger
from soth_mitm.observe.filter_language import And, FlagTerm, TextTerm
from soth_mitm.observe.flow_curl import curl_command
from soth_mitm.observe.flow_record import Fields
from soth_mitm.observe.framers import framer_for
from soth_mitm.observe.har import HarFlow, har_document, is_exchange
from soth_mitm.observe.har_stored import stored_har_flow
from soth_mitm.observe.store.flow_content import FlowContent, FlowMessageEvent
from soth_mitm.observe.store.flow_content import Side as StoredSide
from soth_mitm.observe.store.flow_row import LOST, FlowDetail, FlowRow
from soth_mitm.observe.store.reader import Facet as StoredFacet
from soth_mitm.observe.store.reader import SessionRow, StoreReader
from soth_mitm.views.source import (
    Body,
    Changes,
    CurlCommand,
    Facet,
    FlowDetails,
    FlowLine,
    FlowMessage,
    Index,
    Messages,
    Overview,
    Side,
)
from soth_mitm.views.texts import first_octets, is_text

log = get_logger("soth_mitm.views")

READERS = 4
# octets of one message that are shown
_SHOWN = 65_536
# how soon the watching thread notices that it is to end
_WATCH_SECONDS = 0.5
# with more changes than these a list is read anew
_MOST_CHANGES = 2000
_STRIP_STEPS, _STRIP_SECONDS = 120, 5.0
_PROGRAMS, _HOSTS = 8, 12
_CONTENTS_KEPT = 8

_VIEWS = (
    ("Model calls", "llm"),
    ("Streams", "stream"),
    ("WebSockets", "ws"),
    ("Failed", "failed"),
    ("Blocked", "blocked"),
    ("Cut", "cut"),
    ("Not intercepted", "tunnel"),
    ("Open now", "open"),
)
_BARE = re.compile(r"[^\s()\"*]+")


class StoreSource:
    """Reads the store at `path`. `StoreError`: there is none, it is another user's, or it is none of this version."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._readers: queue.LifoQueue[StoreReader] = queue.LifoQueue()
        self._all: list[StoreReader] = []
        self._watching: threading.Thread | None = None
        self._watchers: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._is_closed = False
        # it fails now or never
        self._readers.put(self._open())
        self._kept: dict[int, tuple[int, FlowContent]] = {}

    def _open(self) -> StoreReader:
        reader = StoreReader(self.path)
        self._all.append(reader)
        return reader

    @contextlib.contextmanager
    def _reader(self) -> Iterator[StoreReader]:
        """Lend a reader that no other thread uses."""
        try:
            reader = self._readers.get_nowait()
        except queue.Empty:
            with self._lock:
                is_full = len(self._all) >= READERS
                reader = self._readers.get() if is_full else self._open()
        try:
            yield reader
        finally:
            self._readers.put(reader)

    def close(self) -> None:
        """End the watching, and let go of the file. Nothing may be asked any longer."""
        self._is_closed = True
        if self._watching is not None:
            self._watching.join()
        for reader in self._all:
            reader.close()

    # --- the whole

    def overview(self) -> Overview:
        """See `Overview`."""
        with self._reader() as reader:
            revision = reader.revision()
            facets, sessions = reader.facets(), reader.sessions()
            is_live = any(session.is_live for session in sessions)
            end = time.time() if is_live or facets.last is None else facets.last + 1
            begin = end - _STRIP_STEPS * _STRIP_SECONDS
            strip = [(0, 0, 0)] * _STRIP_STEPS
            for each in reader.activity(begin, _STRIP_SECONDS):
                if 0 <= each.step < _STRIP_STEPS:
                    strip[each.step] = (each.flows - each.calls - each.failed, each.calls, each.failed)
            size = reader.used_bytes()
        return Overview(
            revision=revision,
            path=str(self.path),
            is_live=is_live,
            flows=facets.flows,
            open=facets.views.get("open", 0),
            dropped=sum(session.dropped for session in sessions),
            expired=sum(session.expired for session in sessions),
            size=size,
            limit=None,
            next_command=_next_command(sessions, self.path),
            notes=tuple(_notes(sessions)),
            views=tuple(Facet(name=name, filter=f"is:{flag}", count=facets.views[flag]) for name, flag in _VIEWS if facets.views.get(flag)),
            programs=tuple(_facets("app", facets.programs[:_PROGRAMS])),
            hosts=tuple(_facets("host", facets.hosts[:_HOSTS])),
            strip_end=end,
            strip=tuple(strip),
        )

    def index(self, filter_text: str) -> Index:
        """See `Index`."""
        with self._reader() as reader:
            found = reader.index(filter_text)
        return Index(
            revision=found.revision,
            ids=found.ids,
            started=found.started,
            total=found.total,
            tokens_in=found.tokens_in,
            tokens_out=found.tokens_out,
            unsearched=found.unseen,
        )

    def lines(self, ids: list[int]) -> list[FlowLine]:
        """Return the lines of these flows, without those that are not there any more."""
        with self._reader() as reader:
            return [line_of(row) for row in reader.rows(ids)]

    def changes(self, after: int, filter_text: str) -> Changes:
        """Return what was written after revision `after`."""
        with self._reader() as reader:
            found = reader.changes(after, filter_text, limit=_MOST_CHANGES)
        return Changes(revision=found.revision, lines=[line_of(row) for row in found.rows], others=found.other, is_partial=found.has_more)

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` after each commit, in a thread of its own, until what is returned is called."""
        with self._lock:
            self._watchers.append(changed)
            if self._watching is None:
                reader = self._open()
                self._watching = threading.Thread(target=self._watch, args=(reader,), name="soth-mitm view", daemon=True)
                self._watching.start()
        return functools.partial(self._watchers.remove, changed)

    def _watch(self, reader: StoreReader) -> None:
        while not self._is_closed:
            try:
                is_changed = reader.wait(_WATCH_SECONDS)
            except (OSError, StoreError) as error:
                log.warning("the store %s is not watched any longer, what changes is seen a second late: %s", self.path, error)
                return
            if is_changed:
                for each in list(self._watchers):
                    each()

    # --- one flow

    def _content(self, flow: int) -> FlowContent | None:
        """Return a flow with its content; the latest ones asked for are kept."""
        with self._reader() as reader:
            row = reader.row(flow)
            if row is None:
                return None
            kept = self._kept.get(flow)
            if kept is not None and kept[0] == row.revision and kept[1].row.state == row.state:
                return kept[1]
            found = reader.flow(flow)
        if found is not None:
            with self._lock:
                self._kept.pop(flow, None)
                self._kept[flow] = (found.row.revision, found)
                while len(self._kept) > _CONTENTS_KEPT:
                    del self._kept[next(iter(self._kept))]
        return found

    def details(self, flow: int) -> FlowDetails | None:
        """Return all of a flow but its content."""
        content = self._content(flow)
        if content is None:
            return None
        row, detail = content.row, content.detail
        timings = detail.timings
        return FlowDetails(
            line=line_of(row, _message_count(content)),
            request_fields=_texts(content.request.fields),
            request_trailers=_texts(content.request.trailers),
            response_fields=_texts(content.response.fields),
            response_trailers=_texts(content.response.trailers),
            timings={name: getattr(timings, name) for name in timings.__struct_fields__},
            client=tuple(_client(row, detail)),
            upstream=tuple(_upstream(detail)),
            why=tuple(_why(row, detail)),
            http_version=detail.http_version,
            upstream_http_version=detail.upstream_http_version,
            losses=tuple(_losses(content)),
            family=str((detail.call or {}).get("family", "")),
        )

    def body(self, flow: int, side: Side) -> Body | None:
        """Return a body, as much of it as is kept."""
        content = self._content(flow)
        if content is None:
            return None
        stored = content.request if side == "request" else content.response
        size = content.row.request_bytes if side == "request" else content.row.response_bytes
        return Body(
            chunks=tuple(stored.chunks),
            media=next(iter(stored.values("content-type")), ""),
            coding=", ".join(stored.values("content-encoding")),
            size=size,
            problem="its content coding could not be removed: this is as it was sent" if stored.is_undecoded else "",
            lost=_lost(content, stored, side) or "",
        )

    def messages(self, flow: int, after: int, limit: int) -> Messages | None:
        """Return messages of a WebSocket, or events of a stream, without the first `after`."""
        content = self._content(flow)
        if content is None:
            return None
        if content.row.kind == "websocket":
            stored = content.messages
            shown = [_websocket_message(number, stored[number]) for number in range(after, min(after + limit, len(stored)))]
            return Messages(messages=tuple(shown), total=len(stored), missed=content.detail.missed)
        events = content.events()
        shown = [_event(number, events[number], content) for number in range(after, min(after + limit, len(events)))]
        return Messages(messages=tuple(shown), total=len(events))

    def curl(self, flow: int) -> CurlCommand | None:
        """Return a command that sends the request again."""
        content = self._content(flow)
        if content is None:
            return None
        try:
            command, lacks = curl_command(content)
        except ValueError as error:
            return CurlCommand(command="", note=str(error))
        return CurlCommand(command=command, note="; ".join(lacks))

    def har(self, filter_text: str) -> Iterator[bytes]:
        """Yield a HAR file of the flows that match, oldest first, in parts; each may wait for the disk."""
        return har_document(self.har_flows(filter_text), version("soth-mitm"), f"filter: {filter_text}" if filter_text else "")

    def har_flows(self, filter_text: str) -> Iterator[HarFlow]:
        """Return the requests that match, oldest first. The filter is read at once, each flow when it is asked for."""
        return self._har_flows(reversed(self.index(filter_text).ids))

    def _har_flows(self, ids: Iterable[int]) -> Iterator[HarFlow]:
        for flow in ids:
            with self._reader() as reader:
                content = reader.flow(flow)
            # it may have made room for a newer one in the meantime
            if content is not None and is_exchange(made := stored_har_flow(content)):
                yield made

    def calls_before(self, flow: int, limit: int) -> list[int]:
        """Return calls of models before this one, to the same host by the same program, the latest first."""
        with self._reader() as reader:
            row = reader.row(flow)
            if row is None:
                return []
            same = And((FlagTerm("llm"), TextTerm("host", "=", row.host), TextTerm("app", "=", row.program)))
            return [each.id for each in reader.flows(same, limit=limit, before=(row.started, row.id)).rows]


def line_of(row: FlowRow, message_count: int | None = None) -> FlowLine:
    """Return a row of the store as a list shows it."""
    return FlowLine(
        id=row.id,
        started=row.started,
        is_open=row.is_open,
        is_lost=row.state == LOST,
        took=row.took,
        kind=row.kind,
        outcome=row.outcome or "",
        cause=row.reason or "",
        scheme=row.scheme or "",
        host=row.host or "",
        port=row.port or 0,
        method=row.method or "",
        path=row.path or "",
        status=row.status or 0,
        protocol=row.protocol or "",
        program=row.program or "",
        pid=row.pid,
        media=row.media or "",
        request_size=row.request_bytes,
        response_size=row.response_bytes,
        is_model_call=row.provider is not None,
        provider=row.provider or "",
        model=row.model or "",
        tokens_in=row.tokens_in,
        tokens_out=row.tokens_out,
        tokens_cached=row.tokens_cached,
        first_token=row.first_token,
        has_messages=row.kind == "websocket" or framer_for(row.media or "") is not None,
        message_count=message_count,
        first_byte=row.first_byte,
    )


def _message_count(content: FlowContent) -> int | None:
    if content.row.kind == "websocket":
        return len(content.messages)
    return len(content.events()) if framer_for(content.row.media) is not None else None


def _texts(fields: Fields) -> tuple[tuple[str, str], ...]:
    return tuple((name.decode("utf-8", "replace"), value.decode("utf-8", "replace")) for name, value in fields)


def _facets(field: str, found: list[StoredFacet]) -> Iterator[Facet]:
    for each in found:
        value = each.value if _BARE.fullmatch(each.value) else '"' + each.value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        yield Facet(name=each.value, filter=f"{field}={value}", count=each.count)


def _notes(sessions: list[SessionRow]) -> Iterator[str]:
    # what was lost in earlier runs is no news
    if sessions and sessions[0].has_vanished:
        began = datetime.fromtimestamp(sessions[0].began)
        yield (
            f"The proxy that began at {began:%Y-%m-%d %H:%M:%S} (pid {sessions[0].pid}) ended without a goodbye. What it had not written "
            "yet, a tenth of a second at most, is not here."
        )


def _next_command(sessions: list[SessionRow], path: Path) -> str:
    for session in sessions:
        address = next((each for each in (session.listening or "").split(", ") if each and not each.startswith("unix:")), None)
        if session.is_live and address is not None:
            return f'eval "$(soth-mitm ca env --proxy http://{address})"'
    return f"soth-mitm run --destination 'api.example.com:443' --store {shlex.quote(str(path))} --view"


def _named(*pairs: tuple[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in pairs:
        if value not in (None, "", 0):
            yield name, str(value)


def _client(row: FlowRow, detail: FlowDetail) -> Iterator[tuple[str, str]]:
    program = f"{row.program or 'unknown'}{'' if row.pid is None else f', pid {row.pid}'}"
    tls = ", ".join(part for part in (detail.tls_version, detail.cipher, f"ALPN {detail.alpn}" if detail.alpn else "") if part)
    yield from _named(
        ("program", program),
        ("executable", detail.exe_path),
        ("script", detail.script_path),
        ("started by", detail.parent),
        ("from", row.client),
        ("to", detail.local),
        ("TLS", tls),
        ("server name", detail.sni),
        ("JA4", detail.ja4),
        ("connection", row.connection),
        ("stream of HTTP/2", detail.http2_stream_id),
    )


def _upstream(detail: FlowDetail) -> Iterator[tuple[str, str]]:
    address = "" if detail.upstream_address is None else f"{detail.upstream_address[0]}, port {detail.upstream_address[1]}"
    alpn = f"ALPN {detail.upstream_alpn}" if detail.upstream_alpn else ""
    tls = ", ".join(part for part in (detail.upstream_tls_version, detail.upstream_cipher, alpn) if part)
    yield from _named(("address", address), ("connection", detail.upstream_connection_id), ("TLS", tls))


def _why(row: FlowRow, detail: FlowDetail) -> Iterator[tuple[str, str]]:
    close = ""
    if detail.websocket_close is not None and detail.websocket_close[0]:
        close = f"{detail.websocket_close[0]}, by the {detail.websocket_close[1]}"
    yield from _named(
        ("destination", detail.pattern or "unlisted"),
        ("handler", detail.decision.replace("_", " ")),
        ("about the response", detail.response_decision.replace("_", " ")),
        ("answered by", detail.answered_by),
        ("outcome", (row.outcome or "").replace("_", " ")),
        ("reason", row.reason),
        ("close", close),
        ("gRPC status", detail.grpc_status),
    )


def _losses(content: FlowContent) -> Iterator[str]:
    for side in ("request", "response"):
        stored = content.request if side == "request" else content.response
        lost = _lost(content, stored, side)
        if lost is not None:
            yield f"Of the {side}: {lost}."
    if content.detail.missed:
        yield f"{content.detail.missed:,} messages came faster than they could be kept."
    if content.row.state == LOST:
        yield "The proxy went without saying how this ended; what it had not written yet is not here."


def _lost(content: FlowContent, stored: StoredSide, side: str) -> str | None:
    row, detail = content.row, content.detail
    size, kept = (row.request_bytes, detail.request_kept) if side == "request" else (row.response_bytes, detail.response_kept)
    if stored.is_binary:
        return f"it is no text, and of such a body only the size is kept ({size:,} bytes)"
    if stored.is_shortened and row.kind != "websocket":
        return (
            f"the first {min(kept, size):,} of {size:,} bytes are kept" if 0 < kept < size else f"the beginning of {size:,} bytes is kept"
        )
    return None


def _websocket_message(number: int, message: Any) -> FlowMessage:
    kind = {1: "text", 2: "binary", 8: "close"}.get(message.opcode, f"opcode {message.opcode}")
    data = message.data
    if message.opcode == 8:
        code = str(int.from_bytes(data[:2])) if len(data) >= 2 else "no code"
        text, is_binary = f"{code} {data[2:].decode('utf-8', 'replace')}".strip(), False
    else:
        is_binary = message.opcode != 1
        text = first_octets(data) if is_binary else data[:_SHOWN].decode("utf-8", "replace")
    return FlowMessage(
        number=number,
        at=message.at_us / 1e6,
        to_client=message.to_client,
        kind=kind,
        text=text,
        size=message.size,
        is_binary=is_binary,
        is_cut=message.opcode != 8 and min(len(data), _SHOWN) < message.size,
    )


def _event(number: int, event: FlowMessageEvent, content: FlowContent) -> FlowMessage:
    side = content.response if event.to_client else content.request
    data = event.data
    is_binary = side.media.startswith("application/grpc") or not is_text(data)
    kind = event.event_type or {"sse_data": "data", "ndjson_line": "line"}.get(event.kind, "message")
    return FlowMessage(
        number=number,
        at=event.at,
        to_client=event.to_client,
        kind=kind,
        text=first_octets(data) if is_binary else data[:_SHOWN].decode("utf-8", "replace"),
        size=len(data),
        is_binary=is_binary,
        is_cut=not event.is_complete or (not is_binary and len(data) > _SHOWN),
    )
