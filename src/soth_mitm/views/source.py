"""What a view needs to know, in its own words: `FlowSource` and what it gives. Nothing here knows of a store, a server or a terminal.

Numbers that were not observed are None, never zero. Times are seconds; moments are seconds since 1970. Texts are as the peers chose them.
"""

from collections.abc import Callable, Iterator
from typing import Literal, Protocol

import msgspec

Side = Literal["request", "response"]


class FlowLine(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One flow as a list shows it."""

    id: int
    started: float
    is_open: bool
    is_lost: bool = False
    """Its proxy has gone without having said how it ended."""
    took: float | None = None
    kind: str = "http"
    """`http`, `websocket`, `tunnel` or `refused`."""
    outcome: str = ""
    cause: str = ""
    scheme: str = ""
    host: str = ""
    port: int = 0
    method: str = ""
    path: str = ""
    status: int = 0
    protocol: str = ""
    program: str = ""
    pid: int | None = None
    media: str = ""
    request_size: int | None = None
    response_size: int | None = None
    is_model_call: bool = False
    provider: str = ""
    model: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None
    tokens_cached: int | None = None
    first_token: float | None = None
    has_messages: bool = False
    """It is a stream of events, lines or messages, or a WebSocket."""
    message_count: int | None = None
    first_byte: float | None = None


class FlowDetails(msgspec.Struct, frozen=True, kw_only=True):
    """All of one flow but its content."""

    line: FlowLine
    request_fields: tuple[tuple[str, str], ...] = ()
    request_trailers: tuple[tuple[str, str], ...] = ()
    response_fields: tuple[tuple[str, str], ...] = ()
    response_trailers: tuple[tuple[str, str], ...] = ()
    timings: dict[str, float | None] = {}
    """As `soth_mitm.observe.flow_record.Timings` has them."""
    client: tuple[tuple[str, str], ...] = ()
    """Names and values, in the order in which they are shown."""
    upstream: tuple[tuple[str, str], ...] = ()
    why: tuple[tuple[str, str], ...] = ()
    """What decided about it: pattern, handler, reason."""
    http_version: str = ""
    upstream_http_version: str = ""
    losses: tuple[str, ...] = ()
    """What of its content is not there, in words."""
    family: str = ""
    """The format of a call of a model, as `ModelCall.family`."""

    @property
    def url(self) -> str:
        """Scheme, authority and path."""
        line = self.line
        host = f"[{line.host}]" if ":" in line.host else line.host
        port = "" if line.port == {"https": 443, "http": 80}.get(line.scheme) else f":{line.port}"
        return f"{line.scheme}://{host}{port}{'' if line.path == '*' else line.path}"


class FlowMessage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One event, line or message of a stream."""

    number: int
    """Counts from 0, both directions together."""
    at: float
    """Seconds since the flow's start."""
    to_client: bool
    kind: str
    """The type of an event, or `text`, `binary`, `close`, `message`, `line`."""
    text: str
    """Its content, or the beginning of it, as far as it is text; what is not is described."""
    size: int
    is_binary: bool = False
    is_cut: bool = False
    """`text` is not all of it."""


class Messages(msgspec.Struct, frozen=True, kw_only=True):
    """Some messages of a flow, in their order."""

    messages: tuple[FlowMessage, ...]
    total: int
    """That are kept by now."""
    missed: int = 0
    """That were not kept."""


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """A body, its content codings removed."""

    chunks: tuple[tuple[float, bytes], ...] = ()
    """Seconds since the flow's start, and what came then."""
    media: str = ""
    """As the head has it, with its parameters."""
    coding: str = ""
    """Its content codings, which are removed unless `problem` says why not."""
    size: int | None = None
    """Bytes on the wire, all of it."""
    problem: str = ""
    """Why it is still encoded, in words."""
    lost: str = ""
    """What of it is not here, in words."""

    @property
    def data(self) -> bytes:
        """All of it that is kept."""
        return b"".join(data for _, data in self.chunks)

    @property
    def media_type(self) -> str:
        """Its type without parameters, in lower case."""
        return self.media.partition(";")[0].strip().lower()


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """The flows that a filter finds, newest first, as far as they are not too many."""

    revision: int
    """Of the store, when this was read."""
    ids: list[int]
    started: list[float]
    total: int
    tokens_in: int | None = None
    tokens_out: int | None = None
    unsearched: int = 0
    """Flows whose words were not looked at."""


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What has changed since a revision."""

    revision: int
    lines: list[FlowLine]
    """Flows that the filter finds."""
    others: list[int]
    """Flows that changed and that the filter does not find."""
    is_partial: bool = False
    """More has changed than is told: read everything anew."""


class Facet(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something to filter by, and how many flows that would find."""

    name: str
    filter: str
    count: int


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """The store as a whole."""

    revision: int
    path: str
    is_live: bool
    """A proxy is writing it."""
    flows: int
    open: int
    dropped: int
    """Flows and messages that the store had no room for in its queue."""
    expired: int = 0
    """Flows that made room for newer ones."""
    size: int
    """Bytes of the file that are used."""
    limit: int | None
    next_command: str = ""
    """What to run next where there is nothing to see yet."""
    notes: tuple[str, ...] = ()
    """What is wrong with it, in words: writing paused, a session that ended without goodbye."""
    views: tuple[Facet, ...] = ()
    programs: tuple[Facet, ...] = ()
    hosts: tuple[Facet, ...] = ()
    strip_end: float = 0.0
    """Moment at which the strip of the last ten minutes ends."""
    strip: tuple[tuple[int, int, int], ...] = ()
    """Flows per five seconds, oldest first: others, calls of models, failed or blocked."""


class CurlCommand(msgspec.Struct, frozen=True, kw_only=True):
    """A request as a command for a shell."""

    command: str
    note: str
    """What it lacks, in words."""


class FlowSource(Protocol):
    """Where a view gets flows from. Every method may wait for a disk, and may be called in any thread.

    `FilterError` from filters that cannot be read, `StoreError` where the disk's content cannot be.
    """

    def overview(self) -> Overview:
        """Return figures of the whole."""

    def index(self, filter_text: str) -> Index:
        """Return which flows match."""

    def lines(self, ids: list[int]) -> list[FlowLine]:
        """Return flows by their ids, without those that are not kept any more."""

    def changes(self, after: int, filter_text: str) -> Changes:
        """Return what was written after a revision."""

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` after each commit, in a thread of its own, until what is returned is called."""

    def details(self, flow: int) -> FlowDetails | None:
        """Return all of a flow but its content; None: it is not kept."""

    def body(self, flow: int, side: Side) -> Body | None:
        """Return a body; None: the flow is not kept."""

    def messages(self, flow: int, after: int, limit: int) -> Messages | None:
        """Return messages without the first `after`; None: the flow is not kept."""

    def curl(self, flow: int) -> CurlCommand | None:
        """Return a command that sends the request again; None: the flow is not kept."""

    def har(self, filter_text: str) -> Iterator[bytes]:
        """Yield a HAR file of the flows that match, oldest first, in parts; each may wait for a disk."""

    def calls_before(self, flow: int, limit: int) -> list[int]:
        """Return calls of models before this one to the same host by the same program, the latest first."""
