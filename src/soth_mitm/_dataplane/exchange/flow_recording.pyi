from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Any, final

from soth_mitm._dataplane.exchange.route import Route

@final
class Recorder:
    def __new__(
        cls,
        loop: AbstractEventLoop,
        on_flow: Callable[[FlowRecording, FlowFacts], object],
        on_event: Callable[[FlowRecording, int, dict[str, str | int]], object],
        *,
        events: int = ...,
        flows: bool = ...,
        content: int = ...,
        messages: bool = ...,
    ) -> Recorder: ...
    @property
    def events(self) -> int: ...
    @property
    def flows(self) -> bool: ...
    @property
    def content(self) -> int: ...
    @property
    def messages(self) -> bool: ...
    @property
    def held(self) -> int: ...
    @property
    def made(self) -> int: ...
    def recording(self, flow_id: int, began: float = ...) -> FlowRecording: ...
    def tell_changed(self) -> None: ...

@final
class FlowRecording:
    describe: Callable[[FlowFacts], object] | None
    route: Route | None
    connection: Any
    turns: Any
    event_count: int
    state: Any
    protocol: int
    is_grpc: bool
    stream_id: int
    upstream_address: tuple[str, int] | None
    upstream_id: int | None
    @property
    def recorder(self) -> Recorder: ...
    @property
    def flow_id(self) -> int: ...
    @property
    def began(self) -> float: ...
    @property
    def started(self) -> float: ...
    @property
    def is_over(self) -> bool: ...
    @property
    def request_size(self) -> int: ...
    @property
    def response_size(self) -> int: ...
    @property
    def request_kept(self) -> int: ...
    @property
    def response_kept(self) -> int: ...
    def change(self) -> None: ...
    def note_endpoint(self, endpoint: Any) -> None: ...
    def finish(self) -> None: ...

@final
class FlowFacts:
    flow_id: int
    kind: int
    meta: Any
    is_over: bool
    is_secret: bool
    began: float
    started: float
    took: float
    outcome: int
    cause: bytes | str | BaseException | None
    verdict: int
    response_verdict: int
    protocol: int
    pattern: str | None
    scheme: str | None
    authority: str | None
    method: bytes | None
    path: bytes | None
    http_version: str | None
    upstream_http_version: str | None
    stream_id: int
    status: int
    answered_by: int
    request_headers: Any
    request_trailers: Any
    response_headers: Any
    response_trailers: Any
    request_size: int
    response_size: int
    request_kept: int
    response_kept: int
    timings: tuple[float, float, float, float, float, float, float]
    upstream_address: tuple[str, int] | None
    upstream_id: int | None
    grpc_status: str | None
    websocket_end: tuple[int, int, int, int] | None
    pieces: tuple[tuple[float, bool, bytes], ...]
    messages: tuple[tuple[float, bool, int, bytes, int], ...]
    octets: int
