"""`FlowRow`: a flow as a store keeps it, without its content; and how it is made from a `FlowRecord`."""

import msgspec

from soth_mitm.addresses import format_host_port
from soth_mitm.connection import ConnectionMeta, UnixDomain
from soth_mitm.observe.flow_record import FlowRecord, Timings

OPEN, OVER, LOST = "open", "over", "lost"
"""States. `lost`: its proxy has gone without having said how it ended."""


class FlowDetail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a flow and is looked at only when it is shown alone."""

    timings: Timings = Timings()
    flow_id: int = 0
    """As it was in its proxy."""
    decision: str = ""
    response_decision: str = ""
    answered_by: str = ""
    pattern: str = ""
    http_version: str = ""
    upstream_http_version: str = ""
    http2_stream_id: int = 0
    upstream_address: tuple[str, int] | None = None
    upstream_connection_id: int | None = None
    grpc_status: str | None = None
    websocket_close: tuple[int, str] | None = None
    request_kept: int = 0
    """Bytes of the content as sent that the store was given."""
    response_kept: int = 0
    missed: int = 0
    """Messages of a WebSocket that are not in the store."""
    exe_path: str | None = None
    script_path: str | None = None
    parent: str | None = None
    """Name of the process that started the program."""
    local: str = ""
    """Our address that the client came to."""
    sni: str | None = None
    alpn: str | None = None
    tls_version: str | None = None
    cipher: str | None = None
    ja4: str | None = None
    upstream_tls_version: str | None = None
    upstream_cipher: str | None = None
    upstream_alpn: str | None = None
    call: dict[str, object] | None = None
    """`ModelCall.as_dict()`, its texts shortened, if it is a call of a model that is over."""


class FlowRow(msgspec.Struct, frozen=True):
    """One flow. None: not observed. Texts are as the peers chose them: escape them where they are shown."""

    id: int
    """In this store; what a person types."""
    revision: int
    """Of the commit that wrote it last."""
    session: int
    connection: str
    started: float
    """Seconds since 1970."""
    took: float | None
    state: str
    """`open`, `over` or `lost`."""
    outcome: str
    """One of `soth_mitm.metrics.FLOW_OUTCOMES`; `""` unless it is over."""
    reason: str
    kind: str
    """A `FlowKind`."""
    scheme: str
    host: str
    port: int
    method: str
    path: str
    status: int
    """That the client was told; 0: none."""
    protocol: str
    program: str
    """Of the client; `""`: it is not known."""
    pid: int | None
    client: str
    """`HOST:PORT`, or `unix:PATH`."""
    media: str
    """Type of the response's content, without parameters, in lower case."""
    request_bytes: int
    response_bytes: int
    first_byte: float | None
    piece_count: int
    error: str
    """What the provider of a model said went wrong."""
    provider: str | None
    """Of a model; None: it is no call of one."""
    model: str | None
    tokens_in: int | None
    tokens_out: int | None
    tokens_cached: int | None
    first_token: float | None
    stop: str | None
    tools: str | None
    """Names of the tools that the model asked for, with blanks between."""
    replayed: int
    words: int
    """Which word table has it; 0: none yet."""

    @property
    def is_open(self) -> bool:
        """Whether it goes on."""
        return self.state == OPEN

    @property
    def authority(self) -> str:
        """Host, and the port unless it is that of the scheme."""
        if self.port == {"https": 443, "http": 80}.get(self.scheme):
            return f"[{self.host}]" if ":" in self.host else self.host
        return format_host_port(self.host, self.port)

    @property
    def url(self) -> str:
        """Scheme, authority and path; of a tunnel its authority."""
        return f"{self.scheme}://{self.authority}{self.path}" if self.scheme else self.authority


COLUMNS = FlowRow.__struct_fields__
"""The columns of table `flow` that make a `FlowRow`, in order; `detail` is not among them."""


def storable(text: str) -> str:
    """Return text that can be encoded, and that SQLite does not take to end in its middle."""
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def _storable(text: str | None) -> str | None:
    return None if text is None else storable(text)


def client_of(meta: ConnectionMeta) -> str:
    """Return the client's address as text."""
    family = meta.socket_family
    return f"unix:{family.path}" if isinstance(family, UnixDomain) else format_host_port(*family.remote)


def media_type(fields: tuple[tuple[bytes, bytes], ...]) -> str:
    """Return the type that a head names, without parameters, in lower case; `""` if it names none."""
    for name, value in fields:
        if name.lower() == b"content-type":
            return value.partition(b";")[0].strip().lower().decode("latin-1")[:100]
    return ""


def program_of(meta: ConnectionMeta) -> str:
    """Return the name of the client's program, `""` if it is not known."""
    process = meta.process_info
    return "" if process is None else process.exe_name or ""


def detail_of(record: FlowRecord, *, missed: int, call: dict[str, object] | None) -> FlowDetail:
    """Return what is kept of `record` beside its columns."""
    meta = record.connection
    tls, process, family = meta.tls_info, meta.process_info, meta.socket_family
    return FlowDetail(
        timings=record.timings,
        flow_id=record.flow_id,
        decision=record.decision,
        response_decision=record.response_decision,
        answered_by=record.answered_by,
        pattern=record.pattern,
        http_version=record.http_version,
        upstream_http_version=record.upstream_http_version,
        http2_stream_id=record.http2_stream_id,
        upstream_address=record.upstream_address,
        upstream_connection_id=record.upstream_connection_id,
        grpc_status=record.grpc_status,
        websocket_close=record.websocket_close,
        request_kept=record.request_kept,
        response_kept=record.response_kept,
        missed=missed,
        exe_path=_storable(None if process is None else process.exe_path),
        script_path=_storable(None if process is None else process.script_path),
        parent=_storable(None if process is None else process.parent_process_name),
        local=f"unix:{family.path}" if isinstance(family, UnixDomain) else format_host_port(*family.local),
        sni=None if tls is None else tls.sni,
        alpn=None if tls is None else tls.negotiated_proto,
        tls_version=None if tls is None else tls.version,
        cipher=None if tls is None else tls.cipher,
        ja4=None if tls is None else tls.ja4,
        upstream_tls_version=None if tls is None else tls.upstream_version,
        upstream_cipher=None if tls is None else tls.upstream_cipher,
        upstream_alpn=None if tls is None else tls.upstream_proto,
        call=call,
    )
