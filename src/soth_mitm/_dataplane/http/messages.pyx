"""What handlers receive: `RawRequest`, `RawResponse`, `StreamChunk`, and their `Headers`.

All of them are read-only views of what the wire carried: names and bytes as received, nothing decoded before it is asked for. Tests of a
handler make their own with `RawRequest.build`, `RawResponse.build` and `StreamChunk.build`.
"""

import enum
from http import HTTPStatus
from urllib.parse import urlsplit

import cython

from libc.stdint cimport int64_t

from soth_mitm._dataplane.http.changes cimport changed_head, changed_response_head, names_decided, trailers_without
from soth_mitm._dataplane.wire.decode cimport Decoder, decode_body, decoder_for, result_of
from soth_mitm._dataplane.http1.head_parser cimport head_error_text, parse_request_head, parse_response_head
from soth_mitm._dataplane.wire.fields cimport USUAL_FIELDS
from soth_mitm._dataplane.wire.head cimport METHOD_HEAD, METHOD_TRACE, Head, version_text
from soth_mitm._dataplane.wire.headers cimport (
    block_of,
    content_encoding_of,
    field_bytes,
    headers_of_block,
    headers_of_head,
    known,
    pairs_of,
)
from soth_mitm._dataplane.memory.view cimport view_bytes


cdef enum:
    BUILD_DECODE_LIMIT = 33554432   # the default of body.max_size_bytes
    BUILD_HEAD_LIMIT = 65536        # that of max_http_head_bytes


class FrameKind(enum.StrEnum):
    """What one `StreamChunk` is."""

    # in the order of FrameBit
    SSE_DATA = "sse_data"
    NDJSON_LINE = "ndjson_line"
    GRPC_MESSAGE = "grpc_message"
    EVENTSTREAM_MESSAGE = "eventstream_message"
    WEBSOCKET_TEXT = "websocket_text"
    WEBSOCKET_BINARY = "websocket_binary"
    WEBSOCKET_CLOSE = "websocket_close"


SSE_DATA = FrameKind.SSE_DATA

# Statuses whose responses have no content, and the one that has something else behind it
BODILESS = (101, 204, 205, 304)


cdef bint accepts_identity(list values) except -1:
    """Tell whether Accept-Encoding lets a body pass that has no coding (RFC 9110 section 12.5.3)."""
    cdef bint any_other = True
    for element in ",".join(values).lower().split(","):
        coding, *parameters = [part.strip() for part in element.split(";")]
        weights = [part[2:].strip() for part in parameters if part.startswith("q=")]
        is_refused = len(weights) > 0 and weights[0].startswith("0") and not weights[0].strip("0.")
        if coding == "identity":
            return not is_refused
        if coding == "*" and is_refused:
            any_other = False
    return any_other


cdef str body_repr(bytes raw_body, bint truncated):
    return f"{len(raw_body)} bytes{', truncated' if truncated else ''}"


cdef class Message:
    """What requests and responses have in common.

    Not final: RawRequest and RawResponse derive from it.
    """

    def __init__(self, *_args, **_named):
        raise TypeError("use RawRequest.build(...) or RawResponse.build(...) to make one")

    cdef int decode(self) except -1:
        """Decode the body unless that was done; again when the exchange has completed it since."""
        if self.decoded_from is not self.raw_body:
            # exact in a request: what is decided on by it is what every server reads
            self.decoded(decode_body(content_encoding_of(self.head), self.raw_body, self.decode_limit,
                                     self.is_cut(), self.head.is_request))
        return 0

    cdef bint is_cut(self) noexcept:
        return self.body_truncated

    cdef int decoded(self, tuple result) except -1:
        self._body, self._decode_error = result
        self.decoded_from = self.raw_body
        return 0

    @property
    def http_version(self):
        """``"HTTP/1.0"``, ``"HTTP/1.1"`` or ``"HTTP/2"``, as the sender said."""
        return version_text(known(self.head).version)

    @property
    def headers(self):
        """The `Headers` as received."""
        if self._headers is None:
            self._headers = headers_of_head(self.head)
        return self._headers

    @property
    def trailers(self):
        """The `Headers` that followed the body; empty when there were none, or when they have not arrived."""
        if self._trailers is None or self._trailers.block is not self.trailer_block:
            self._trailers = headers_of_block(self.trailer_block)
        return self._trailers

    @property
    def body(self):
        """The content with its content codings removed, or `raw_body` when that fails: then `decode_error` says why.

        Empty when a response is `streaming`: its frames go to ``on_stream_chunk``.
        """
        self.decode()
        return self._body

    @property
    def decode_error(self):
        """Why `body` could not be decoded, None when it could. A body that is cut is decoded as far as it goes, without an error."""
        self.decode()
        return self._decode_error


@cython.final
cdef class RawRequest(Message):
    """A request, as a handler sees it. Read-only; made by the proxy, and by `build` in tests."""

    @staticmethod
    def build(*, str method="GET", str url="http://localhost/", headers=(), bytes body=b"", trailers=(), connection_meta=None,
              int64_t flow_id=0, bint body_truncated=False, bint body_complete=True, bint conversation=False,
              began=None, Py_ssize_t decode_limit=BUILD_DECODE_LIMIT):
        """Make a request as the proxy would have received it, to test a handler with.

        `url` is absolute and names scheme and authority; a Host header is put first unless `headers` has one. `body` is what the wire would
        carry: with a Content-Encoding header it must be so encoded. `body_truncated`, `body_complete` and `conversation` make a request of
        which the handler does not see all. ValueError says which rule of HTTP the parts break.
        """
        parts = urlsplit(url)
        authority = parts.netloc.rpartition("@")[2]
        if not parts.scheme or not authority:
            raise ValueError(f"url: {url!r} must be absolute, such as https://api.example.com/v1/items")
        pairs = pairs_of(headers)
        if b"host" not in [name.lower() for name, _ in pairs]:
            pairs.insert(0, (b"Host", field_bytes(authority)))
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        text = f"{method} {target} HTTP/1.1\r\n".encode("latin-1") + block_of(pairs) + b"\r\n"
        head = Head()
        parsed(head, text, True)
        request = new_request(head, connection_meta, flow_id, parts.scheme.lower(), authority, body, decode_limit)
        request.body_truncated = body_truncated
        request.body_complete = body_complete
        request.conversation = conversation
        request.began_at = 0 if began is None else began
        request.trailer_block = block_of(pairs_of(trailers))
        request.has_body = bool(body or conversation or not body_complete or request.trailer_block)
        return request

    cdef bint is_cut(self) noexcept:
        return self.body_truncated or not self.body_complete

    cdef tuple decode_little(self, Py_ssize_t most):
        cdef bytes encoding = content_encoding_of(self.head)
        cdef bint cut = self.is_cut()
        cdef Decoder decoder
        cdef bytes content
        if encoding is None or not self.raw_body or self.decode_limit <= most:
            return None
        decoder = decoder_for(encoding, most, False, True)
        if decoder is None:
            return None
        if len(self.raw_body) <= most or decoder.error is not None:
            content = decoder.feed(self.raw_body)
            if not decoder.too_long:
                self.decoded(result_of(decoder, content, self.raw_body, cut))
                return None
        return encoding, self.raw_body, self.decode_limit, cut, True

    cdef int check_change(self, object decision) except -1:
        if decision.method is not None:
            if (decision.method == b"HEAD") != (self.head.method == METHOD_HEAD):
                raise ValueError("method: a request may not become HEAD or stop being it")
            if decision.method == b"TRACE" and self.has_body:
                raise ValueError("method: a TRACE has no body")
            if self.keeps_upgrade:
                raise ValueError("method: an upgrade keeps its own")
        if decision.body and (self.head.method == METHOD_TRACE if decision.method is None else decision.method == b"TRACE"):
            raise ValueError("body: a TRACE has none")
        if decision.body is not None and self.body_problem is not None:
            raise ValueError(f"body: the request was not shown whole ({self.body_problem})")
        return 0

    def changed(self, decision not None):
        """Return this request as `decision` would send it; the request itself if that changes nothing.

        `decision` is ``HandlerDecision.ALLOW`` or ``HandlerDecision.forward(...)``, and another kind is a ValueError. Where `to` names
        another origin, `scheme`, `authority` and Host are those of that origin; whether the request may go there is not asked. A body of
        bytes is `body`. One that is an async iterable is not asked for its items: `body` is empty, and `body_problem` ``"conversation"``.
        Content-Length and Transfer-Encoding of a new body are written when it is sent, and are not among the headers.

        ValueError says why the decision cannot be applied to this request. Returned by `on_request` it would be answered 502.
        """
        cdef Head head
        cdef RawRequest other
        cdef bytes authority, trailers
        kind = getattr(decision, "kind", None)
        if kind == "allow":
            return self
        if kind != "forward":
            raise ValueError(f"decision: expected HandlerDecision.ALLOW or .forward(...), which send the request, got {decision!r}")
        where = decision._where
        authority = None if where is None or where.authority is None else where.authority.encode()
        self.check_change(decision)
        head = changed_head(known(self.head), decision, authority, self.head_limit, self.most_fields)
        trailers = None if decision.body is not None else trailers_without(self.trailer_block, names_decided(decision))
        if head is self.head and decision.body is None and authority is None and trailers == self.trailer_block:
            return self
        other = new_request(head, self.connection_meta, self.flow_id, self.scheme, self.authority, self.raw_body, self.decode_limit)
        other.began_at = self.began_at
        other.head_limit, other.most_fields = self.head_limit, self.most_fields
        other.keeps_upgrade = self.keeps_upgrade
        if authority is not None:
            other.authority = where.authority
            if where.is_tls is not None:
                other.scheme = "https" if where.is_tls else "http"
        if decision.body is not None:
            other.has_body = True
            other.conversation = type(decision.body) is not bytes
            other.raw_body = b"" if other.conversation else decision.body
            return other
        other.has_body = self.has_body
        other.conversation = self.conversation
        other.body_complete = self.body_complete
        other.body_truncated = self.body_truncated
        other.trailer_block = trailers
        if content_encoding_of(head) == content_encoding_of(self.head):
            other._body, other._decode_error, other.decoded_from = self._body, self._decode_error, self.decoded_from
        return other

    @property
    def method(self):
        """The method as sent, such as ``"POST"``; methods are case-sensitive."""
        return view_bytes(known(self.head).span(0, self.head.method_len)).decode("latin-1")

    @property
    def path(self):
        """The target in origin form, query included, such as ``"/v1/items?limit=3"``; ``"*"`` for OPTIONS of the whole server."""
        return known(self.head).origin_target().decode("latin-1")

    @property
    def url(self):
        """Scheme, authority and path in one string."""
        path = self.path
        return f"{self.scheme}://{self.authority}{'' if path == '*' else path}"

    @property
    def began(self):
        """When the request's head had come, in seconds of `time.monotonic()`. None in a request that was built without it."""
        return None if self.began_at == 0 else self.began_at

    @property
    def body_problem(self):
        """Why `body` is not all that the upstream is going to read, or None when it is. A gate that looks at bodies blocks what has one.

        ``"conversation"``: decided on at its head (gRPC, an upgrade, or ``body.buffer_request_bodies`` is off), and no more of it is shown.
        ``"too_long"``: longer than ``body.max_size_bytes``; `body` is its beginning. ``"late"``: not complete after
        ``body.buffer_timeout_ms``; `body` is what has arrived. ``"undecodable"``: `decode_error` says why. With
        ``body.incomplete = "refuse"`` the proxy answers such a request itself, and the handler never sees one.
        """
        if self.conversation:
            return "conversation"
        if self.body_truncated:
            return "too_long"
        if not self.body_complete:
            return "late"
        self.decode()
        return None if self._decode_error is None else "undecodable"

    def __repr__(self):
        # A query may hold credentials
        url = self.url.partition("?")
        return f"<RawRequest {self.method} {url[0]}{'?…' if url[1] else ''} {body_repr(self.raw_body, self.body_truncated)}>"


@cython.final
cdef class RawResponse(Message):
    """A response, as a handler sees it. Read-only; made by the proxy, and by `build` in tests."""

    @staticmethod
    def build(*, int status=200, str reason=None, headers=(), bytes body=b"", trailers=(), RawRequest request=None, connection_meta=None,
              int64_t flow_id=0, bint body_truncated=False, bint body_complete=True, bint streaming=False,
              Py_ssize_t decode_limit=BUILD_DECODE_LIMIT):
        """Make a response as the proxy would have received it, to test a handler with.

        `body` is what the wire would carry: with a Content-Encoding header it must be so encoded. `connection_meta` and `flow_id` are those
        of `request` when that is given. ValueError says which rule of HTTP the parts break.
        """
        if reason is None:
            reason = HTTPStatus(status).phrase if status in HTTPStatus.__members__.values() else ""
        text = f"HTTP/1.1 {status:03d} {reason}\r\n".encode("latin-1") + block_of(pairs_of(headers)) + b"\r\n"
        head = Head()
        parsed(head, text, False)
        if request is not None:
            connection_meta = request.connection_meta if connection_meta is None else connection_meta
            flow_id = flow_id or request.flow_id
        response = new_response(head, connection_meta, flow_id, request, body, streaming, decode_limit)
        response.body_truncated = body_truncated
        response.body_complete = body_complete and not body_truncated
        response.was_held = True
        response.trailer_block = block_of(pairs_of(trailers))
        return response

    cdef bint is_cut(self) noexcept:
        return self.body_truncated or not self.body_complete

    cdef int64_t length_of(self, object decision) except -2:
        return len(decision.body) if type(decision.body) is bytes else -1

    cdef int check_change(self, object decision) except -1:
        cdef int old = self.head.status
        cdef int status = old if decision.status is None else decision.status
        cdef bint names_range
        if decision.body is None:
            if status != old and old in BODILESS:
                raise ValueError(f"status: a response with status {old} has no body, and a change gives it none; use replace()")
            return 0
        if self.was_held and not self.body_complete:
            raise ValueError("body: the response was not shown whole (body_complete)")
        if status == 101:
            raise ValueError("status: a 101 is replaced by a response with another status")
        if decision.body and status in BODILESS:
            raise ValueError(f"body: a response with status {status} has none")
        names_range = decision.headers is not None and b"content-range" in [name.lower() for name, _ in decision.headers]
        if status == 206 and not names_range and (old != 206 or not 0 <= self.length_of(decision) == self.ranged_length()):
            raise ValueError("body: the body of a 206 keeps its length, as Content-Range says what it is a part of")
        if decision.body and not self.takes_identity(decision):
            raise ValueError("body: the client refuses a body without a coding (Accept-Encoding: identity;q=0)")
        return 0

    cdef int64_t ranged_length(self) except -2:
        return len(self.raw_body) if self.was_held else self.head.content_length

    cdef bint takes_identity(self, object decision) except -1:
        """Tell whether the client takes a body that is not coded, as far as the upstream sent it one that is."""
        if content_encoding_of(self.head) is None or self.request is None or self.request.head is None:
            return True
        for name, _ in (*decision.set, *(decision.headers or ())):
            if name.lower() == b"content-encoding":
                return True
        return accepts_identity(headers_of_head(self.request.head).get_all("accept-encoding"))

    def changed(self, decision not None):
        """Return this response as `decision` would send it; the response itself if that changes nothing.

        `decision` is ``ResponseDecision.PASS``, ``UNFILTERED``, ``change(...)`` or ``replace(...)``, and another kind is a ValueError. A
        body of bytes is `body`. One that is an async iterable is not asked for its items: `body` is empty, and `body_complete` is False.

        ValueError says why the decision cannot be applied to this response. Returned by a hook it would be answered 502.
        """
        cdef Head head
        cdef RawResponse other
        cdef int64_t length
        kind = getattr(decision, "kind", None)
        if kind in ("pass", "unfiltered"):
            return self
        if kind not in ("change", "replace"):
            raise ValueError(
                f"decision: expected ResponseDecision.PASS, .change(...) or .replace(...), which send the response, got {decision!r}")
        known(self.head)
        self.check_change(decision)
        length = self.length_of(decision)
        head = changed_response_head(self.head, decision, length, self.head_limit, self.most_fields)
        if head is self.head and decision.body is None:
            return self
        other = self.again(head)
        if decision.body is not None:
            other.raw_body = decision.body if length >= 0 else b""
            other.body_complete = length >= 0
            other.body_truncated = other.streaming = False
            return other
        other.trailer_block = trailers_without(self.trailer_block, names_decided(decision))
        if content_encoding_of(head) == content_encoding_of(self.head):
            other._body, other._decode_error, other.decoded_from = self._body, self._decode_error, self.decoded_from
        return other

    cdef RawResponse again(self, Head head):
        cdef RawResponse other = new_response(
            head, self.connection_meta, self.flow_id, self.request, self.raw_body, self.streaming, self.decode_limit)
        other.head_limit, other.most_fields, other.was_held = self.head_limit, self.most_fields, self.was_held
        other.body_complete, other.body_truncated = self.body_complete, self.body_truncated
        other._note = self._note
        return other

    def _shown(self, bint with_body, tuple note):
        """Return this response as `on_response_body` is given it, or as `on_response_head`. For a Chain."""
        cdef RawResponse other = self.again(known(self.head))
        other.was_held = with_body
        other._note = note
        if not with_body:
            other.raw_body = b""
            other.body_complete = other.body_truncated = False
            return other
        other.trailer_block = self.trailer_block
        other._body, other._decode_error, other.decoded_from = self._body, self._decode_error, self.decoded_from
        return other

    @property
    def status(self):
        """The status code, such as ``200``."""
        return known(self.head).status

    @property
    def reason(self):
        """The reason phrase as received, often ``""``."""
        return view_bytes(known(self.head).span(self.head.reason, self.head.reason_len)).decode("latin-1")

    def __repr__(self):
        body = "streaming" if self.streaming else body_repr(self.raw_body, self.body_truncated)
        return f"<RawResponse {self.status} {body}>"


@cython.final
@cython.freelist(256)
cdef class StreamChunk:
    """One frame of a stream: an SSE event, an NDJSON line, a gRPC message, a message of AWS, a WebSocket message or its close.

    `payload` is the frame's content in bytes; `truncated` says that the frame was longer than the budget of one frame. `complete` is False
    for such a frame, and for a last SSE event that came without its blank line: it may have been cut anywhere. `sequence` counts from 0 for
    each flow and direction. `request` is the flow's request; of one whose body is long, memory may be so scarce that it is let go.
    `event_type` is that of an SSE event or of a message of AWS, `event_id` and `retry` are those of an SSE event; else they are None.
    `replaced` says that ``filter_stream_chunk`` sent it in place of what came, `injected` that the handler sent it unasked.
    """

    def __init__(self, *_args, **_named):
        raise TypeError("use StreamChunk.build(...) to make a chunk")

    @staticmethod
    def build(bytes payload not None, frame_kind=FrameKind.SSE_DATA, *, bint truncated=False, complete=None, event_type=None, event_id=None,
              retry=None, connection_id=None, connection_meta=None, int64_t flow_id=0, RawRequest request=None, str direction="to_client",
              int64_t sequence=0, bint replaced=False, bint injected=False):
        """Make a chunk, to test a handler with. It is complete unless it is truncated or `complete` says otherwise."""
        chunk = new_chunk(payload, FrameKind(frame_kind), truncated)
        if complete is not None:
            chunk.complete = complete
        if request is not None:
            connection_meta = request.connection_meta if connection_meta is None else connection_meta
            flow_id = flow_id or request.flow_id
        chunk.request = request
        chunk.event_type = event_type
        chunk.event_id = event_id
        chunk.retry = retry
        chunk.connection_id = connection_id
        chunk.connection_meta = connection_meta
        chunk.flow_id = flow_id
        chunk.direction = direction
        chunk.sequence = sequence
        chunk.replaced = replaced
        chunk.injected = injected
        return chunk

    @property
    def text(self):
        """`payload` as text. Bytes that are no UTF-8 become U+FFFD."""
        return self.payload.decode("utf-8", "replace")

    def changed(self, decision not None):
        """Return the chunks that `decision`, a ``ChunkDecision``, sends in place of this one: itself for ``PASS``, none for ``DROP``.

        Those of a ``replace`` are `replaced`, and have in them what a reader of the stream finds. ValueError says why the decision cannot
        be applied to this chunk. Returned by `filter_stream_chunk` it would end the stream, as ``END`` does, which sends nothing.
        """
        kind = getattr(decision, "kind", None)
        if kind == "pass":
            return (self,)
        if kind == "drop":
            return ()
        if kind != "replace":
            raise ValueError(f"decision: expected ChunkDecision.PASS, .DROP or .replace(...), got {decision!r}")
        return tuple(chunks_in_place(self, decision.payloads))

    def __reduce__(self):
        # a request belongs to its connection, and stays in the process
        return _chunk_again, (self.payload, self.frame_kind, self.truncated, self.complete, self.event_type, self.event_id, self.retry,
                              self.connection_id, self.connection_meta, self.flow_id, self.direction, self.sequence, self.replaced,
                              self.injected)

    def __repr__(self):
        event = "" if self.event_type is None else f" event={self.event_type!r}"
        cut = ", truncated" if self.truncated else "" if self.complete else ", incomplete"
        cut += ", replaced" if self.replaced else ", injected" if self.injected else ""
        return f"<StreamChunk {self.frame_kind} #{self.sequence} {self.direction}{event} {len(self.payload)} bytes{cut}>"


def _chunk_again(bytes payload, frame_kind, bint truncated, bint complete, event_type, event_id, retry, connection_id, connection_meta,
                 int64_t flow_id, str direction, int64_t sequence, bint replaced, bint injected):
    return StreamChunk.build(payload, frame_kind, truncated=truncated, complete=complete, event_type=event_type, event_id=event_id,
                             retry=retry, connection_id=connection_id, connection_meta=connection_meta, flow_id=flow_id,
                             direction=direction, sequence=sequence, replaced=replaced, injected=injected)


cdef int parsed(Head head, bytes text, bint is_request) except -1:
    """Parse the head of a message that is being built; what the parser refuses is the caller's mistake."""
    cdef Py_ssize_t scanned = 0
    cdef Py_ssize_t consumed
    if is_request:
        consumed = parse_request_head(head, text, len(text), len(text), len(text), &scanned)
    else:
        consumed = parse_response_head(head, text, len(text), len(text), len(text), &scanned)
    if consumed < 0:
        raise ValueError(f"not a valid message head: {head_error_text(head.error)}")
    if consumed != len(text):
        raise ValueError("not a valid message head: it ends before its last header")
    return 0


cdef RawRequest new_request(Head head, object meta, int64_t flow_id, str scheme, str authority, bytes raw_body, Py_ssize_t decode_limit):
    cdef RawRequest request = RawRequest.__new__(RawRequest)
    request.head = head
    request.connection_meta = meta
    request.flow_id = flow_id
    request.scheme = scheme
    request.authority = authority
    request.raw_body = raw_body
    request.body_complete = True
    request.decode_limit = decode_limit
    request.head_limit = BUILD_HEAD_LIMIT
    request.most_fields = USUAL_FIELDS
    return request


cdef RawResponse new_response(Head head, object meta, int64_t flow_id, RawRequest request, bytes raw_body, bint streaming,
                              Py_ssize_t decode_limit):
    cdef RawResponse response = RawResponse.__new__(RawResponse)
    response.head = head
    response.connection_meta = meta
    response.flow_id = flow_id
    response.request = request
    response.raw_body = raw_body
    response.streaming = streaming
    response.body_complete = True
    response.head_limit = BUILD_HEAD_LIMIT
    response.most_fields = USUAL_FIELDS
    response.decode_limit = decode_limit
    return response


cdef StreamChunk new_chunk(bytes payload, object frame_kind, bint truncated):
    cdef StreamChunk chunk = StreamChunk.__new__(StreamChunk)
    chunk.payload = payload
    chunk.frame_kind = frame_kind
    chunk.truncated = truncated
    chunk.complete = not truncated
    return chunk


cdef StreamChunk copy_of_chunk(StreamChunk chunk):
    cdef StreamChunk copy = new_chunk(chunk.payload, chunk.frame_kind, chunk.truncated)
    copy.complete = chunk.complete
    copy.event_type = chunk.event_type
    copy.event_id = chunk.event_id
    copy.retry = chunk.retry
    copy.replaced = chunk.replaced
    copy.injected = chunk.injected
    copy.connection_id = chunk.connection_id
    copy.connection_meta = chunk.connection_meta
    copy.flow_id = chunk.flow_id
    copy.request = chunk.request
    copy.direction = chunk.direction
    copy.sequence = chunk.sequence
    copy._note = chunk._note
    return copy


cdef list chunks_in_place(StreamChunk chunk, tuple payloads):
    cdef StreamChunk other
    cdef list chunks = []
    cdef bint is_sse = chunk.frame_kind is SSE_DATA
    if chunk.truncated:
        raise ValueError("replace: the chunk was shown cut (body.max_size_bytes), and its rest would go with it; DROP or END it")
    for payload in payloads:
        other = copy_of_chunk(chunk)
        other.replaced = other.complete = True
        if type(payload) is bytes:
            other.payload = payload
            if chunks and is_sse:
                other.event_type = "message"
                other.retry = None
        elif not is_sse:
            raise ValueError("replace: an SseEvent is for a stream of events, and this one is another")
        else:
            other.payload = payload.data
            other.event_type = payload.event or "message"
            other.retry = payload.retry
            if payload.id is not None:
                other.event_id = payload.id
        if is_sse and b"\r" in other.payload:
            # a line ends there as well
            other.payload = other.payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        chunks.append(other)
    return chunks


def noted_chunk(StreamChunk chunk not None, tuple note):
    """Return the chunk as it is shown after a decision about the response that left `note`. For tests."""
    cdef StreamChunk other = copy_of_chunk(chunk)
    other._note = note
    return other
