"""What an event sink is given of each flow: `FlowRecord` as it stands, and `FlowUpdate` with the content that came since the last one.

A flow is one request with its response, one WebSocket with its handshake, or one tunnel; a CONNECT that is refused is one as well. A short
flow is handed over once, when it has ended. One that stays open is handed over while it changes, and once more when it has ended.
Numbers that were not observed are None, never zero.
"""

from enum import StrEnum

import msgspec

from soth_mitm.connection import ConnectionMeta

Fields = tuple[tuple[bytes, bytes], ...]
"""The fields of a head or of trailers, names and values as received, in their order."""


class FlowKind(StrEnum):
    """What a flow is."""

    HTTP = "http"
    WEBSOCKET = "websocket"
    """From its handshake on: also where the handshake was refused."""
    TUNNEL = "tunnel"
    """Bytes that are relayed unread."""
    REFUSED = "refused"
    """A connection that was refused before it had a request: a CONNECT, or a handshake that failed."""


class Timings(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Seconds from the request's head to each step; None: it did not come to that, or was not observed."""

    decided: float | None = None
    """The handler has decided about the request."""
    acquired: float | None = None
    """A connection to the upstream could be used."""
    dialled: float | None = None
    """How long that connection took, name look-up and TLS included; None: it was there already. A duration, not a moment."""
    tls: float | None = None
    """How long the TLS handshake took of that. A duration, not a moment."""
    sent: float | None = None
    """The whole request was sent on."""
    first_byte: float | None = None
    """The head of the final response came."""
    ended: float | None = None
    """The flow ended."""


class FlowRecord(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one flow but its content. A later record of the same flow takes the place of an earlier one.

    Texts and fields are as the peers chose them, credentials included: a sink masks what it keeps (`soth_mitm.observe.masking`).
    """

    flow_id: int
    """Unique in the process."""
    kind: FlowKind
    connection: ConnectionMeta
    """The client's, as it was known when the record was made."""
    is_over: bool
    started: float
    """Seconds since 1970: when the request's head, or the CONNECT, had come."""
    took: float | None = None
    """Seconds until the flow ended; None: it is open."""
    outcome: str = ""
    """One of `soth_mitm.metrics.FLOW_OUTCOMES`; `""` while it is open."""
    cause: str = ""
    """Why it was not the upstream's whole answer, in words; of a tunnel, why it is one; `""`: nothing to say."""
    decision: str = ""
    """What became of the handler's decision: the name of a `Verdict` in lower case, such as `allowed` or `blocked`."""
    response_decision: str = ""
    """The name of a `ResponseVerdict`, in lower case."""
    protocol: str = ""
    """One of `soth_mitm.metrics.FLOW_PROTOCOLS`."""
    pattern: str = ""
    """The configured destination that it matched; `""`: it is unlisted."""

    scheme: str = ""
    """`https`, `http`; `""` of a tunnel."""
    host: str = ""
    port: int = 0
    method: str = ""
    path: str = ""
    """In origin form, with its query; `""` of a tunnel."""
    http_version: str = ""
    """As `RawRequest.http_version` has it."""
    upstream_http_version: str = ""
    """What the upstream answered in; `""` where it did not."""
    http2_stream_id: int = 0
    """Of the client's connection; 0: it is not HTTP/2."""
    status: int = 0
    """That the client was told; 0: nothing."""
    answered_by: str = ""
    """`upstream`, `handler` or `proxy`; `""`: nothing has answered yet."""

    request_fields: Fields = ()
    request_trailers: Fields = ()
    response_fields: Fields = ()
    """Of the response that the client was sent."""
    response_trailers: Fields = ()
    request_size: int = 0
    """Bytes of the request's content so far, as sent; of a tunnel, bytes from the client."""
    response_size: int = 0
    """Bytes of the response's content so far, as sent; of a tunnel, bytes to the client."""
    request_kept: int = 0
    """Of these, how many were handed over as pieces; fewer than all where the sink asked for less, or memory was short."""
    response_kept: int = 0

    timings: Timings = Timings()
    upstream_address: tuple[str, int] | None = None
    """Address and port that the upstream's connection goes to."""
    upstream_connection_id: int | None = None
    """Unique in the process; two flows with the same one shared it."""
    grpc_status: str | None = None
    websocket_close: tuple[int, str] | None = None
    """Code of the first Close, and who sent it: `client`, `upstream`, `proxy`. 1005: it had none. (0, `nobody`): there was none."""
    worker: int = 0


class Piece(msgspec.Struct, frozen=True, gc=False):
    """Content of a body, as it passed: content codings are on it, transfer codings and frames are not. For a WebSocket there is none."""

    at: float
    """Seconds since the flow's start."""
    to_client: bool
    data: bytes


class FlowMessage(msgspec.Struct, frozen=True, gc=False):
    """One message of a WebSocket, decoded, as it left the proxy."""

    at: float
    """Seconds since the flow's start."""
    to_client: bool
    opcode: int
    """1 text, 2 binary, 8 close (its payload is code and reason)."""
    data: bytes
    """The message, or its beginning."""
    size: int
    """Bytes of the whole message."""


class FlowUpdate(msgspec.Struct, frozen=True, gc=False):
    """A flow as it stands, and the content that came since the update before."""

    record: FlowRecord
    pieces: tuple[Piece, ...] = ()
    messages: tuple[FlowMessage, ...] = ()
    missed: int = 0
    """Messages since the update before that are not here, since the queue was full."""
