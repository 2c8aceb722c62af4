import enum
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, final

from soth_mitm._dataplane.headers import Headers as Headers

_GivenHeaders: TypeAlias = Headers | Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]

class FrameKind(enum.StrEnum):
    SSE_DATA = "sse_data"
    NDJSON_LINE = "ndjson_line"
    GRPC_MESSAGE = "grpc_message"
    WEBSOCKET_TEXT = "websocket_text"
    WEBSOCKET_BINARY = "websocket_binary"
    WEBSOCKET_CLOSE = "websocket_close"

@final
class RawRequest:
    @staticmethod
    def build(
        *,
        method: str = "GET",
        url: str = "http://localhost/",
        headers: _GivenHeaders = (),
        body: bytes = b"",
        trailers: _GivenHeaders = (),
        connection_meta: Any = None,
        flow_id: int = 0,
        body_truncated: bool = False,
        body_complete: bool = True,
        decode_limit: int = 33554432,
    ) -> RawRequest: ...
    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def scheme(self) -> str: ...
    @property
    def authority(self) -> str: ...
    @property
    def http_version(self) -> str: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def trailers(self) -> Headers: ...
    @property
    def body(self) -> bytes: ...
    @property
    def raw_body(self) -> bytes: ...
    @property
    def body_truncated(self) -> bool: ...
    @property
    def body_complete(self) -> bool: ...
    @property
    def decode_error(self) -> str | None: ...
    @property
    def connection_meta(self) -> Any: ...
    @property
    def flow_id(self) -> int: ...

@final
class RawResponse:
    @staticmethod
    def build(
        *,
        status: int = 200,
        reason: str | None = None,
        headers: _GivenHeaders = (),
        body: bytes = b"",
        trailers: _GivenHeaders = (),
        request: RawRequest | None = None,
        connection_meta: Any = None,
        flow_id: int = 0,
        body_truncated: bool = False,
        streaming: bool = False,
        decode_limit: int = 33554432,
    ) -> RawResponse: ...
    @property
    def status(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def http_version(self) -> str: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def trailers(self) -> Headers: ...
    @property
    def body(self) -> bytes: ...
    @property
    def raw_body(self) -> bytes: ...
    @property
    def body_truncated(self) -> bool: ...
    @property
    def decode_error(self) -> str | None: ...
    @property
    def streaming(self) -> bool: ...
    @property
    def request(self) -> RawRequest | None: ...
    @property
    def connection_meta(self) -> Any: ...
    @property
    def flow_id(self) -> int: ...

@final
class StreamChunk:
    @staticmethod
    def build(
        payload: bytes,
        frame_kind: FrameKind | str = ...,
        *,
        truncated: bool = False,
        event_type: str | None = None,
        event_id: str | None = None,
        retry: int | None = None,
        connection_id: Any = None,
        flow_id: int = 0,
        direction: str = "to_client",
        sequence: int = 0,
    ) -> StreamChunk: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def frame_kind(self) -> FrameKind: ...
    @property
    def truncated(self) -> bool: ...
    @property
    def event_type(self) -> str | None: ...
    @property
    def event_id(self) -> str | None: ...
    @property
    def retry(self) -> int | None: ...
    @property
    def connection_id(self) -> Any: ...
    @property
    def flow_id(self) -> int: ...
    @property
    def direction(self) -> str: ...
    @property
    def sequence(self) -> int: ...
