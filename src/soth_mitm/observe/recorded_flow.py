"""A flow as the data plane noted it, made into what a sink is given. Called in the threads of sinks."""

import functools

from soth_mitm._dataplane.exchange.flow_recording import FlowFacts
from soth_mitm._dataplane.wire.headers import Headers
from soth_mitm.addresses import DEFAULT_PORTS, parse_authority
from soth_mitm.metrics import FLOW_OUTCOMES, FLOW_PROTOCOLS
from soth_mitm.observe.flow_record import Fields, FlowKind, FlowMessage, FlowRecord, FlowUpdate, Piece, Timings
from soth_mitm.observe.observation import CLOSED_BY, ResponseVerdict, Verdict, cause_text
from soth_mitm.observe.sink_feed import NOTHING_LOST, Lost

# in the order of the data plane
KINDS = tuple(FlowKind)
VERDICTS = tuple(verdict.name.lower() for verdict in Verdict)
RESPONSE_VERDICTS = tuple(verdict.name.lower() for verdict in ResponseVerdict)
ANSWERED_BY = ("", "upstream", "handler", "proxy")


class RecordedFlow:
    """A flow at one moment; see `FlowState`."""

    __slots__ = ("_facts", "_has_content", "flow_id", "is_over", "octets")

    def __init__(self, facts: FlowFacts, *, has_content: bool = True) -> None:
        self._facts = facts
        self._has_content = has_content
        self.flow_id = facts.flow_id
        self.is_over = facts.is_over
        self.octets = facts.octets if has_content else 0

    def spared(self, content: int) -> tuple["RecordedFlow", Lost]:
        """Return the same without content, and what of it a sink misses that wants `content` bytes."""
        request = sum(len(piece.data) for piece in self._pieces(content) if not piece.to_client)
        response = sum(len(piece.data) for piece in self._pieces(content) if piece.to_client)
        return RecordedFlow(self._facts, has_content=False), Lost(request, response, len(self._facts.messages))

    def update(self, content: int, messages: bool, lost: Lost = NOTHING_LOST) -> FlowUpdate:
        """Return the update for a sink that wants `content` bytes of each body, and perhaps messages."""
        facts = self._facts
        shown: tuple[FlowMessage, ...] = ()
        if messages and self._has_content:
            shown = tuple(FlowMessage(at, down, opcode, data[:content], size) for at, down, opcode, data, size in facts.messages)
        return FlowUpdate(self._record(content, lost), self._pieces(content), shown, lost.messages if messages else 0)

    def _pieces(self, content: int) -> tuple[Piece, ...]:
        facts = self._facts
        if not content or not facts.pieces or not self._has_content:
            return ()
        # what came before them of each side
        before = {
            down: kept - sum(len(data) for _, to_client, data in facts.pieces if to_client == down)
            for down, kept in ((False, facts.request_kept), (True, facts.response_kept))
        }
        pieces = []
        for at, to_client, data in facts.pieces:
            taken = data[: max(0, content - before[to_client])]
            before[to_client] += len(data)
            if taken:
                pieces.append(Piece(at, to_client, taken))
        return tuple(pieces)

    def _record(self, content: int, lost: Lost) -> FlowRecord:
        # made for each flow and each sink: names are looked up in tables, not made
        facts = self._facts
        meta, cause, close = facts.meta, facts.cause, facts.websocket_end
        if facts.authority is None:
            host, port = meta.target or ("", 0)
        else:
            host, port = destination(facts.authority, facts.scheme) or (facts.authority, 0)
        return FlowRecord(
            flow_id=facts.flow_id,
            kind=KINDS[facts.kind],
            connection=meta,
            is_over=facts.is_over,
            started=facts.started,
            took=facts.took if facts.is_over else None,
            outcome=FLOW_OUTCOMES[facts.outcome] if facts.outcome >= 0 else "",
            cause="" if cause is None else cause if isinstance(cause, str) else cause_text(cause),
            decision=VERDICTS[facts.verdict],
            response_decision=RESPONSE_VERDICTS[facts.response_verdict],
            protocol=FLOW_PROTOCOLS[facts.protocol],
            pattern=facts.pattern or "",
            scheme=facts.scheme or "",
            host=host,
            port=port,
            method=(facts.method or b"").decode("latin-1"),
            path=(facts.path or b"").decode("latin-1"),
            http_version=facts.http_version or "",
            upstream_http_version=facts.upstream_http_version or "",
            http2_stream_id=facts.stream_id,
            status=facts.status,
            answered_by=ANSWERED_BY[facts.answered_by],
            request_fields=_fields(facts.request_headers),
            request_trailers=_fields(facts.request_trailers),
            response_fields=_fields(facts.response_headers),
            response_trailers=_fields(facts.response_trailers),
            request_size=facts.request_size,
            response_size=facts.response_size,
            request_kept=_kept(facts.request_kept, content, lost.request),
            response_kept=_kept(facts.response_kept, content, lost.response),
            timings=_timings(facts),
            upstream_address=facts.upstream_address,
            upstream_connection_id=facts.upstream_id,
            grpc_status=facts.grpc_status,
            websocket_close=None if close is None else (close[3], CLOSED_BY[close[2]]),
        )


def _kept(kept: int, content: int, lost: int) -> int:
    """Return how many bytes a sink was given that wants `content` of them and lost some."""
    if not content or not kept:
        return 0
    return max(0, min(kept, content) - lost)


@functools.lru_cache(maxsize=1024)
def destination(authority: str, scheme: str | None) -> tuple[str, int] | None:
    """Return host and port of an authority; None if it is none."""
    try:
        return parse_authority(authority, DEFAULT_PORTS[scheme or "http"])
    except ValueError:
        return None


def _timings(facts: FlowFacts) -> Timings:
    decided, acquired, dialled, tls, sent, first_byte, ended = facts.timings
    return Timings(
        decided=decided if decided >= 0 else None,
        acquired=acquired if acquired >= 0 else None,
        dialled=dialled if dialled >= 0 else None,
        tls=tls if tls >= 0 else None,
        sent=sent if sent >= 0 else None,
        first_byte=first_byte if first_byte >= 0 else None,
        ended=ended if ended >= 0 else None,
    )


def _fields(headers: object) -> Fields:
    if headers is None:
        return ()
    return tuple(headers.raw if isinstance(headers, Headers) else headers)  # type: ignore[arg-type]
