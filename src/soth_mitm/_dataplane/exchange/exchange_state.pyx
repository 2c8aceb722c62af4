"""What an exchange is: its two streams, its states, its deadlines, and what an observer is told of it.

An `Exchange` is one object, written down in parts that derive from each other; each calls only what stands before it, and `advance`. The
parts are, from here on: what event sinks are told (exchange_recorded), what the handler is shown (exchange_shown), how an exchange ends
(exchange_ends), back-pressure (exchange_pressure), responses of ours (exchange_answers), changes of the request (exchange_changes), a
switch to another protocol (exchange_upgrades), credentials (exchange_credentials), decisions about the response (exchange_responses),
content that passes through stages (exchange_stages), and the way of both messages (exchange).
"""

from cpython.time cimport monotonic

from soth_mitm._dataplane.exchange.callbacks cimport ExchangeCallbacks
from soth_mitm._dataplane.exchange.states cimport (
    INPUT_ANSWERED, INPUT_BEGIN, INPUT_SWITCH, RESPONSE_DONE, RESPONSE_RELAY, RESPONSE_SWITCHED, STAGE_DOWNLOAD, STAGE_RESPONSE,
    STAGE_UPLOAD, RequestInput, ResponseInput, next_request_state, next_response_state,
)
from soth_mitm._dataplane.http.counters cimport (
    END_ABORTED, END_ANSWERED, END_BLOCKED, END_CUT_BY_PROXY, END_RESPONDED, END_TUNNELLED, FLOW_GRPC, FLOW_HTTP1, FLOW_HTTP2,
    FLOW_SSE, FLOW_STREAMABLE_HTTP, FLOW_TUNNEL, FLOW_WEBSOCKET, FlowEnd, FlowCounts,
)
from soth_mitm._dataplane.memory.deadline cimport Deadline, DeadlineQueue
from soth_mitm._dataplane.memory.view cimport view_bytes
from soth_mitm._dataplane.wire.fields cimport stop_fields
from soth_mitm._dataplane.wire.head cimport Head, version_text
from soth_mitm._dataplane.wire.headers cimport headers_of_block
from soth_mitm._dataplane.wire.streams cimport STREAM_GRPC, STREAM_GRPC_WEB_TEXT, STREAM_NONE, STREAM_SSE, stream_of


# not final: the next part derives from it
cdef class ExchangeState(ExchangeCallbacks):
    """Both messages of an exchange and how far they are."""

    cdef int move_request(self, RequestInput event) except -1:
        cdef int state = next_request_state(self.request_state, event)
        if state < 0:
            raise AssertionError(f"an exchange's request in state {self.request_state} has no input {event}")
        self.request_state = <RequestState>state
        return 0

    cdef int move_response(self, ResponseInput event) except -1:
        cdef int state = next_response_state(self.response_state, event)
        if state < 0:
            raise AssertionError(f"an exchange's response in state {self.response_state} has no input {event}")
        self.response_state = <ResponseState>state
        if event == INPUT_BEGIN or event == INPUT_ANSWERED or event == INPUT_SWITCH:
            self.count_first_byte()
        return 0

    cdef bint has_response(self) noexcept:
        return self.response_state >= RESPONSE_RELAY

    cdef int advance(self) except -1:
        raise NotImplementedError

    cdef int take_later(self) except -1:
        raise NotImplementedError

    # ---- deadlines

    cdef int set_client_deadline(self, DeadlineQueue queue, int stage) except -1:
        if self.client_deadline is None:
            self.client_deadline = Deadline(self)
        return self.client_deadline.set(queue, stage)

    cdef int set_upstream_deadline(self, DeadlineQueue queue, int stage) except -1:
        if self.upstream_deadline is None:
            self.upstream_deadline = Deadline(self)
        return self.upstream_deadline.set(queue, stage)

    cdef int clear_upstream_deadline(self) except -1:
        if self.upstream_deadline is not None:
            self.upstream_deadline.clear()
        return 0

    cdef int await_upload(self) except -1:
        cdef bint is_said = self.response_state == RESPONSE_DONE and self.client.is_complete()
        if is_said and self.own_request is not None and not self.own_request.can_repeat():
            # items that keep coming give it no more time
            if self.is_lingering:
                return 0
            self.is_lingering = True
        # a client that has said everything and has its response does not wait for long until the upstream has heard all of it
        return self.set_client_deadline(self.settings.linger if is_said else self.settings.body_idle, STAGE_UPLOAD)

    cdef int await_response(self) except -1:
        cdef bint is_multiplexed = self.upstream.is_multiplexed()
        return self.set_upstream_deadline(
            self.settings.http2_response_head if is_multiplexed else self.settings.response_head, STAGE_RESPONSE)

    cdef int await_download(self) except -1:
        cdef bint is_multiplexed = self.upstream.is_multiplexed()
        return self.set_upstream_deadline(
            self.settings.http2_body_idle if is_multiplexed else self.settings.body_idle, STAGE_DOWNLOAD)

    cdef int clear_deadlines(self) except -1:
        if self.client_deadline is not None:
            self.client_deadline.clear()
        return self.clear_upstream_deadline()

    # ---- the response's head

    cdef int strip_alternatives(self, Head head) except -1:
        if self.settings.strip_alt_svc and self.hooks is not None:
            stop_fields(head.base(), head.fields, head.count, b"alt-svc", 7)
        return 0

    # ---- what is counted of it

    cdef int count_first_byte(self) noexcept:
        if self.has_answered:
            return 0
        self.has_answered = True
        return self.settings.counters.first_byte_times.add(monotonic() - self.began)

    cdef int count_end(self) except -1:
        cdef FlowCounts counts = self.route.counts
        if counts is None:
            counts = self.settings.counters.unlisted
        counts.count(self.flow_protocol(), self.flow_end(), self.status if self.has_answered else 0)
        return self.settings.counters.request_times.add(monotonic() - self.began)

    cdef FlowEnd flow_end(self) noexcept:
        if self.response_state == RESPONSE_SWITCHED:
            return END_TUNNELLED
        if (self.verdict == VERDICT_BLOCKED or self.verdict == VERDICT_FAILED or self.response_verdict == RESPONSE_BLOCKED
                or self.response_verdict == RESPONSE_FAILED):
            # whether or not the client has heard of it
            return END_BLOCKED
        if self.verdict == VERDICT_ABORTED:
            return END_ABORTED
        if self.fault != END_ANSWERED:
            return self.fault
        if self.verdict == VERDICT_ANSWERED:
            return END_RESPONDED
        return END_ANSWERED if self.has_answered and self.response_state == RESPONSE_DONE else END_CUT_BY_PROXY

    cdef int flow_protocol(self) except -1:
        cdef int stream
        if self.is_websocket:
            return FLOW_WEBSOCKET
        if self.response_state == RESPONSE_SWITCHED:
            return FLOW_TUNNEL
        stream = STREAM_NONE if self.relayed is None else stream_of(self.relayed, self.settings.stream_types)
        if stream == STREAM_NONE:
            return FLOW_HTTP2 if self.client.is_multiplexed() else FLOW_HTTP1
        if stream == STREAM_SSE:
            return FLOW_SSE
        return FLOW_GRPC if STREAM_GRPC <= stream <= STREAM_GRPC_WEB_TEXT else FLOW_STREAMABLE_HTTP

    # ---- an observer

    cdef int tell_observer(self, ExchangeEvent event) except -1:
        if self.recording is not None and event == EXCHANGE_DECIDED:
            self.recording.note_decision(self.verdict, self.cause)
        if self.settings.observer is None:
            return 0
        self.settings.observer.flow(
            <int>event, self.id, self.route.meta, view_bytes(self.request.span(0, self.request.method_len)), self.route.scheme,
            self.route.authority, self.request.origin_target(), self.verdict, self.status,
            self.relayed is not None and (
                self.relayed.status == 101 or stream_of(self.relayed, self.settings.stream_types) != STREAM_NONE),
            self.client.content_total(), self.response_total, monotonic() - self.began, self.cause, version_text(self.request.version),
            self.grpc_status() if event == EXCHANGE_ENDED else None, self.response_verdict, self.is_websocket, self.websocket_end)
        return 0

    cdef str grpc_status(self):
        cdef int index
        if self.response is None:
            return None
        if not STREAM_GRPC <= stream_of(self.response, self.settings.stream_types) <= STREAM_GRPC_WEB_TEXT:
            return None
        index = self.response.find(b"grpc-status", 11)
        if index < 0:
            return headers_of_block(self.response_trailers).get("grpc-status")
        return view_bytes(
            self.response.span(self.response.fields[index].value, self.response.fields[index].value_len)).decode("latin-1")
