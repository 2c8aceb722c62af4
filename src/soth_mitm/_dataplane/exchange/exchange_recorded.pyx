"""What event sinks are told of an exchange: its heads as they came and left, its content, its messages, and its end.

Nothing is told that the handler is not shown: of credentials the placeholders, and of what the policy does not intercept only where it
goes.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING

from soth_mitm._dataplane.exchange.body_buffer cimport BodyCopy
from soth_mitm._dataplane.exchange.exchange_state cimport ExchangeState
from soth_mitm._dataplane.exchange.flow_recording cimport (
    ANSWERED_BY_HANDLER, ANSWERED_BY_PROXY, FLOW_IS_HTTP, FLOW_IS_WEBSOCKET, TOLD_GRPC_REQUEST_HEADERS, TOLD_GRPC_RESPONSE_HEADERS,
    TOLD_GRPC_RESPONSE_TRAILERS, TOLD_REQUEST_HEADERS, TOLD_RESPONSE_HEADERS, TOLD_SSE_EVENT, TOLD_TLS_FAILED, TOLD_TLS_STARTED,
    TOLD_TLS_SUCCEEDED, TOLD_WEBSOCKET_CLOSED, TOLD_WEBSOCKET_OPENED, AnsweredBy, FlowFacts, FlowRecording, Recorder, new_flow_recording,
)
from soth_mitm._dataplane.http.counters cimport FLOW_GRPC
from soth_mitm._dataplane.http.messages cimport StreamChunk
from soth_mitm._dataplane.http.stages cimport ContentStage
from soth_mitm._dataplane.memory.view cimport View, view_bytes
from soth_mitm._dataplane.websocket.handshake cimport asks_for_websocket
from soth_mitm._dataplane.wire.head cimport METHOD_HEAD, Head, version_text
from soth_mitm._dataplane.wire.headers cimport headers_of_block, headers_of_head
from soth_mitm._dataplane.wire.streams cimport STREAM_GRPC, STREAM_GRPC_WEB_TEXT, STREAM_NDJSON, STREAM_JSON_SEQ, STREAM_SSE, stream_of

from soth_mitm.errors import TlsFailedError

# of Recorder.on_event, in the order of AnsweredBy
cdef tuple SOURCES = ("", "upstream", "handler", "proxy")


# not final: the next part derives from it
cdef class ExchangeRecorded(ExchangeState):
    """What event sinks are told."""

    cdef int begin_recording(self) except -1:
        self.recording = new_flow_recording(self.settings.recorder, self, self.id, self.began)
        self.recording.route = self.route
        self.recording.stream_id = self.client.number()
        # until it is known where it goes
        self.recording.is_secret = True
        return 0

    # ---- the request

    cdef int record_request(self) except -1:
        cdef FlowRecording recording = self.recording
        cdef Recorder recorder = recording.recorder
        cdef bytes path
        cdef int stream
        if recording.has_told_request:
            return 0
        recording.has_told_request = True
        recording.route = self.route
        # not intercepted, but not refused either
        recording.is_secret = self.hooks is None and self.route.pool is not None
        recording.protocol = self.flow_protocol()
        stream = stream_of(self.request, self.settings.stream_types)
        recording.is_grpc = STREAM_GRPC <= stream <= STREAM_GRPC_WEB_TEXT
        path = self.request.origin_target()
        if recorder.wants(TOLD_REQUEST_HEADERS):
            recording.tell(TOLD_REQUEST_HEADERS, {
                "authority": self.route.authority, "bytes": len(self.request.raw), "http2_stream_id": recording.stream_id,
                "method": view_bytes(self.request.span(0, self.request.method_len)).decode("latin-1"), "path": path.decode("latin-1")})
        if recording.is_grpc and recorder.wants(TOLD_GRPC_REQUEST_HEADERS):
            service, _, method = path.partition(b"?")[0].strip(b"/").decode("latin-1").rpartition("/")
            recording.tell(TOLD_GRPC_REQUEST_HEADERS, {"method": method, "service": service})
        return 0

    cdef int record_collected(self) except -1:
        cdef BodyCopy copy
        if self.buffered is None or self.recording.has_noted_body:
            return 0
        self.recording.has_noted_body = True
        copy = self.buffered.content
        if copy.size:
            self.recording.note_content(False, PyBytes_AS_STRING(copy.content), copy.size)
        return 0

    cdef int record_upstream(self) except -1:
        cdef FlowRecording recording = self.recording
        cdef object connection = self.upstream.connection()
        cdef object facts = connection.facts
        recording.note_upstream(connection)
        if recording.tls < 0:
            return 0
        if recording.recorder.wants(TOLD_TLS_STARTED):
            recording.tell(TOLD_TLS_STARTED, {"side": "upstream", "sni": self.pool.origin.server_name or ""})
        if recording.recorder.wants(TOLD_TLS_SUCCEEDED):
            recording.tell(TOLD_TLS_SUCCEEDED, {
                "alpn": facts.alpn or "", "cipher": facts.cipher or "", "resumed": int(facts.resumed), "side": "upstream",
                "sni": self.pool.origin.server_name or "", "version": facts.version or ""})
        return 0

    cdef int record_no_upstream(self, object error) except -1:
        cdef FlowRecording recording = self.recording
        if not isinstance(error, TlsFailedError):
            return 0
        if recording.recorder.wants(TOLD_TLS_STARTED):
            recording.tell(TOLD_TLS_STARTED, {"side": "upstream", "sni": self.pool.origin.server_name or ""})
        if recording.recorder.wants(TOLD_TLS_FAILED):
            recording.tell(TOLD_TLS_FAILED, {"class": str(error.reason), "detail": error.detail, "side": "upstream"})
        return 0

    # ---- the response

    cdef int record_head(self, Head head) except -1:
        self.recording.first_byte = self.recording.since_began()
        return 0

    cdef int record_interim(self, Head head) except -1:
        if self.recording.recorder.wants(TOLD_RESPONSE_HEADERS):
            self.recording.tell(TOLD_RESPONSE_HEADERS, {
                "bytes": len(head.raw), "from": "upstream", "interim": 1, "media_type": "", "status": head.status})
        return 0

    cdef int record_response(self, AnsweredBy by) except -1:
        cdef FlowRecording recording = self.recording
        cdef Recorder recorder = recording.recorder
        recording.answered_by = by
        recording.own_headers = None
        recording.protocol = self.flow_protocol()
        if recorder.wants(TOLD_RESPONSE_HEADERS):
            recording.tell(TOLD_RESPONSE_HEADERS, {
                "bytes": len(self.relayed.raw), "from": SOURCES[<int>by], "media_type": media_type(headers_of_head(self.relayed)),
                "status": self.relayed.status})
        if recording.is_grpc and recorder.wants(TOLD_GRPC_RESPONSE_HEADERS):
            recording.tell(TOLD_GRPC_RESPONSE_HEADERS, {"status": self.relayed.status})
        if self.is_websocket and (recorder.wants(TOLD_WEBSOCKET_OPENED) or recorder.reads_messages()):
            recording.tell(TOLD_WEBSOCKET_OPENED, {"is_read": int(self.from_client is not None)})
        if self.held_body is not None and self.held_body.content.size:
            recording.note_content(True, PyBytes_AS_STRING(self.held_body.content.content), self.held_body.content.size)
        return recording.touch()

    cdef int record_answer(self, int status, bytes body, object headers) except -1:
        cdef FlowRecording recording = self.recording
        cdef bint is_bodiless = status < 200 or status == 204 or status == 304
        cdef bint is_typed = is_bodiless
        cdef list fields = list(headers or ())
        self.record_request()
        # what the handler decided on, if it came to that
        self.record_collected()
        if headers is None:
            recording.answered_by = ANSWERED_BY_PROXY
            body = body if not body or body.endswith(b"\n") else body + b"\n"
        else:
            recording.answered_by = ANSWERED_BY_HANDLER
        for name, _ in fields:
            is_typed = is_typed or name.lower() == b"content-type"
        if not is_typed:
            fields.append((b"Content-Type", b"text/plain; charset=utf-8"))
        if body is not None and not is_bodiless:
            fields.append((b"Content-Length", b"%d" % len(body)))
        recording.own_headers = tuple(fields)
        recording.protocol = self.flow_protocol()
        if recording.first_byte < 0:
            recording.first_byte = recording.since_began()
        if recording.recorder.wants(TOLD_RESPONSE_HEADERS):
            recording.tell(TOLD_RESPONSE_HEADERS, {
                "bytes": 0, "from": SOURCES[recording.answered_by], "media_type": media_type({
                    name.decode("latin-1").lower(): value.decode("latin-1") for name, value in fields}), "status": status})
        if body and not is_bodiless and self.request.method != METHOD_HEAD:
            recording.note_content(True, PyBytes_AS_STRING(body), len(body))
        return recording.touch()

    cdef int record_body(self, View piece) except -1:
        return self.recording.note_content(True, piece.ptr, piece.len)

    # ---- frames and messages

    cdef bint records_frames(self, int stream) noexcept:
        return (stream == STREAM_SSE or stream == STREAM_NDJSON or stream == STREAM_JSON_SEQ) and (
            self.recording.recorder.wants(TOLD_SSE_EVENT))

    cdef bint records_messages(self) noexcept:
        return self.hooks is not None and self.recording.recorder.reads_messages()

    cdef int record_frame(self, StreamChunk chunk, str direction) except -1:
        cdef FlowRecording recording = self.recording
        if direction != "to_client" or self.down is None and self.down_stages is None or not self.records_frames(
                stream_of(self.relayed, self.settings.stream_types)):
            return 0
        recording.sse_events += 1
        recording.tell(TOLD_SSE_EVENT, {
            "bytes": len(chunk.payload), "complete": int(chunk.complete), "event": chunk.event_type or "", "framing": str(chunk.frame_kind),
            "id": chunk.event_id or "", "sequence_no": recording.sse_events})
        return 0

    cdef ContentStage record_stage(self):
        cdef RecordStage stage = RecordStage()
        stage.exchange = self
        return stage

    # ---- the end

    cdef int record_end(self) except -1:
        cdef FlowRecording recording = self.recording
        cdef Recorder recorder = recording.recorder
        cdef str status
        self.record_collected()
        recording.protocol = self.flow_protocol()
        if recording.is_grpc and recording.answered_by and recorder.wants(TOLD_GRPC_RESPONSE_TRAILERS):
            status = self.grpc_status()
            recording.tell(TOLD_GRPC_RESPONSE_TRAILERS, {
                "grpc_message": "" if self.response_trailers is None else headers_of_block(self.response_trailers).get("grpc-message", ""),
                "grpc_status": "" if status is None else status, "trailers_only": int(self.response_trailers is None)})
        if self.is_websocket and recording.answered_by and (recorder.wants(TOLD_WEBSOCKET_CLOSED) or recording.turns is not None):
            recording.tell(TOLD_WEBSOCKET_CLOSED, self.websocket_close())
        return recording.end()

    cdef dict websocket_close(self):
        if self.websocket_end is None:
            return {"by": 3, "code": 0, "reason": ""}
        return {"by": self.websocket_end[2], "code": self.websocket_end[3], "reason": ""}

    # ---- the flow as it stands

    cdef int describe_flow(self, object told) except -1:
        cdef FlowFacts facts = <FlowFacts>told
        cdef FlowRecording recording = self.recording
        cdef bint is_http = not self.is_websocket
        facts.kind = FLOW_IS_WEBSOCKET if self.is_websocket or (
            self.keep_upgrade and asks_for_websocket(self.request)) else FLOW_IS_HTTP
        facts.meta = self.route.meta if self.way is None else self.way.meta
        facts.outcome = <int>self.flow_end() if facts.is_over else -1
        facts.cause = self.cause
        facts.verdict = self.verdict
        facts.response_verdict = self.response_verdict
        facts.protocol = self.flow_protocol()
        if recording.is_grpc and facts.protocol < 2:
            facts.protocol = <int>FLOW_GRPC
        facts.pattern = "" if self.route.counts is None else self.route.counts.name
        facts.scheme = self.route.scheme
        facts.authority = self.route.authority
        facts.method = view_bytes(self.request.span(0, self.request.method_len))
        facts.path = self.request.origin_target()
        facts.http_version = version_text(self.request.version)
        facts.status = self.status if self.has_answered else 0
        if is_http and self.client is not None:
            # what nobody wanted to see is among it
            facts.request_size = max(facts.request_size, self.client.content_total())
        if self.response is not None:
            facts.upstream_http_version = version_text(self.response.version)
        facts.websocket_end = self.websocket_end
        if recording.is_secret:
            return 0
        facts.request_headers = headers_of_head(self.request)
        facts.octets += len(self.request.raw)
        if self.request_trailers is not None:
            facts.request_trailers = headers_of_block(self.request_trailers)
        if self.relayed is not None and recording.answered_by and recording.own_headers is None:
            facts.response_headers = headers_of_head(self.relayed)
            facts.octets += len(self.relayed.raw)
        if self.response_trailers is not None and self.relayed is not None:
            facts.response_trailers = headers_of_block(self.response_trailers)
        facts.grpc_status = self.grpc_status()
        return 0


@cython.final
cdef class RecordStage(ContentStage):
    """Has content recorded that passes."""

    cdef Py_ssize_t feed(self, const char* data, Py_ssize_t length) except -1:
        cdef Py_ssize_t taken = self.next.feed(data, length)
        if taken > 0 and self.exchange is not None and self.exchange.recording is not None:
            self.exchange.recording.note_content(True, data, taken)
        return taken

    cdef int close(self) except -1:
        # it refers to us
        self.exchange = None
        return 0


cdef str media_type(object headers):
    return headers.get("content-type", "").partition(";")[0].strip().lower()
