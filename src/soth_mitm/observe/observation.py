"""What happens in a proxy, told to an observer beside it.

The observer is called by the loop, in a turn of its own: nothing that it does, and nothing that it raises, reaches a decision or a flow.
Without one nothing of this is made. Every event is one `Event`, whatever it is about; what a kind has no use for is left at its default.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import IntEnum, StrEnum

import msgspec

from soth_mitm.connection import ConnectionMeta
from soth_mitm.escaping import get_logger

log = get_logger("soth_mitm.observe")

# Events that wait for their turn. They are told in the next one, so that more than these come only from a turn without end.
BACKLOG = 8192


class EventKind(StrEnum):
    """What one `Event` is about."""

    REQUEST = "request"
    """The handler has decided about a request, or failed to (`verdict`)."""
    RESPONSE = "response"
    """The head of a final response, of the upstream, came; where the handler decides about it, that is done (`response_verdict`)."""
    FLOW_END = "flow_end"
    """A request is over: `status` is what the client was told, 0 if nothing; `cause` says why that was not the upstream's whole answer."""
    TUNNEL = "tunnel"
    """A CONNECT is not intercepted; `cause` says why: `unlisted`, `handler`, `bypass` or `unknown_protocol`."""
    TUNNEL_END = "tunnel_end"
    """Such a tunnel is over."""
    REFUSED = "refused"
    """A connection was refused before a request was read: a CONNECT, or first bytes; `status` and `cause` are what the client was told."""
    TLS_FAILED = "tls_failed"
    """A handshake failed, with the client or with the upstream; `cause` says how."""


class Verdict(IntEnum):
    """What became of the decision about a request. The data plane has the same numbers."""

    NOT_ASKED = 0
    ALLOWED = 1
    BLOCKED = 2
    FAILED = 3
    """The handler failed, and nothing was forwarded."""
    NOT_APPLIED = 4
    """A block in monitor mode."""
    UNDECIDED = 5
    """The handler failed, and `handler.failure_policy` let the request go."""
    ANSWERED = 6
    """The handler gave the response."""
    ABORTED = 7
    """The handler ended it without a response."""
    OTHER_NOT_APPLIED = 8
    """Another decision than to allow or to block, in monitor mode."""
    CHANGED = 9
    """Forwarded, and not as it came."""


class ResponseVerdict(IntEnum):
    """What became of the decision about a response. The data plane has the same numbers."""

    NOT_ASKED = 0
    PASSED = 1
    CHANGED = 2
    """With another head, or with the same one after all."""
    REPLACED = 3
    """With a body of the handler's."""
    BLOCKED = 4
    """The handler gave another response."""
    FAILED = 5
    """The handler failed, and the response was not relayed."""
    UNDECIDED = 6
    """The handler failed, and `handler.failure_policy` let the response pass."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened. Texts are as the peers chose them: escape them where they are shown (`soth_mitm.escaping`)."""

    kind: EventKind
    meta: ConnectionMeta | None = None
    host: str = ""
    """Of the target, with `port`; of a flow, `url` says more."""
    port: int = 0
    flow_id: int = 0
    method: str = ""
    url: str = ""
    verdict: Verdict = Verdict.NOT_ASKED
    response_verdict: ResponseVerdict = ResponseVerdict.NOT_ASKED
    status: int = 0
    is_stream: bool = False
    request_size: int = 0
    """Bytes of the request's content so far, as its client sent it."""
    size: int = 0
    """Bytes of the response's content so far."""
    seconds: float = 0.0
    """Since the request's head came."""
    cause: str = ""
    http_version: str = ""
    """Of a flow: what its client speaks, as `RawRequest.http_version` has it."""
    grpc_status: str | None = None
    """Of the end of a gRPC call: its `grpc-status` as the upstream sent it. None if it sent none."""
    is_websocket: bool = False
    """Of a flow: it is one that has opened a WebSocket."""
    messages: tuple[int, int] | None = None
    """Of the end of a WebSocket whose messages were read: how many passed to the upstream and to the client."""
    closed_by: str = ""
    """Of such an end: who sent the first Close: `client`, `upstream`, `proxy`, or `nobody`."""
    close_code: int = 0
    """The code of that Close; 1005: it had none (RFC 6455 section 7.4.1)."""
    certificate_refused: bool = False
    """Of a handshake with a client: it refused the certificate that we showed, as far as it said."""


Observer = Callable[[Event], None]

# who has sent the first Close of a WebSocket; the data plane has the same order
CLOSED_BY = ("client", "upstream", "proxy", "nobody")
_FLOW_KINDS = (EventKind.REQUEST, EventKind.RESPONSE, EventKind.FLOW_END)


class Observation:
    """Takes events from both planes and tells `observer` of them in a turn of the loop of their own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, observer: Observer) -> None:
        self._loop = loop
        self._observer = observer
        self._waiting: deque[Callable[[], Event]] = deque()
        self._is_called = False
        self.failures = 0
        self.dropped = 0

    def flow(
        self,
        kind: int,
        flow_id: int,
        meta: ConnectionMeta,
        method: bytes,
        scheme: str,
        authority: str,
        path: bytes,
        verdict: int,
        status: int,
        is_stream: bool,
        request_size: int,
        size: int,
        seconds: float,
        cause: bytes | BaseException | None,
        http_version: str,
        grpc_status: str | None,
        response_verdict: int,
        is_websocket: bool,
        websocket_end: tuple[int, int, int, int] | None,
    ) -> None:
        """Something of a flow. Called by the data plane, which gives what it has at hand; the rest is done later."""

        def make() -> Event:
            target = path.decode("latin-1")
            return Event(
                kind=_FLOW_KINDS[kind],
                meta=meta,
                flow_id=flow_id,
                method=method.decode("latin-1"),
                url=f"{scheme}://{authority}{'' if target == '*' else target}",
                verdict=Verdict(verdict),
                status=status,
                is_stream=is_stream,
                request_size=request_size,
                size=size,
                seconds=seconds,
                cause=cause_text(cause),
                http_version=http_version,
                grpc_status=grpc_status,
                response_verdict=ResponseVerdict(response_verdict),
                is_websocket=is_websocket,
                messages=None if websocket_end is None else websocket_end[:2],
                closed_by="" if websocket_end is None else CLOSED_BY[websocket_end[2]],
                close_code=0 if websocket_end is None else websocket_end[3],
            )

        self._push(make)

    def connection(
        self,
        kind: EventKind,
        meta: ConnectionMeta | None,
        host: str,
        port: int,
        *,
        status: int = 0,
        cause: str = "",
        certificate_refused: bool = False,
    ) -> None:
        """Something of a connection."""

        def make() -> Event:
            return Event(kind=kind, meta=meta, host=host, port=port, status=status, cause=cause, certificate_refused=certificate_refused)

        self._push(make)

    def _push(self, make: Callable[[], Event]) -> None:
        if len(self._waiting) >= BACKLOG:
            self.dropped += 1
            return
        self._waiting.append(make)
        if not self._is_called:
            self._is_called = True
            self._loop.call_soon(self.tell)

    def tell(self) -> None:
        """Tell what waits. Called by the loop, and at the proxy's end."""
        self._is_called = False
        for _ in range(len(self._waiting)):
            make = self._waiting.popleft()
            try:
                self._observer(make())
            except (Exception, SystemExit) as error:
                # not ours: whatever it raises stays here; `SystemExit` is what some terminal libraries make of a broken pipe
                self.failures += 1
                if self.failures == 1:
                    log.warning("the observer failed: %r (further failures are counted only)", error, exc_info=error)


def cause_text(cause: bytes | BaseException | None) -> str:
    """Say in words why a flow ended as it did."""
    if cause is None:
        return ""
    if isinstance(cause, bytes):
        return cause.decode("utf-8", "backslashreplace")
    return str(cause) or type(cause).__name__
