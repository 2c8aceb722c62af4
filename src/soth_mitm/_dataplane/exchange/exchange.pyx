"""HTTP/1 on one client connection: read a request, ask the handler, forward, relay the response as it arrives, and again.

The two directions are independent: an early response is relayed while the upload goes on. Each entry from outside (bytes, a deadline, a
hook's answer, a connection from the pool) changes a state and calls `advance`, which moves both directions as far as they go.
"""

cimport cython

from soth_mitm._dataplane.http1.framing cimport BODY_DONE, body_error_text, body_of_request
from soth_mitm._dataplane.exchange.conversation cimport (
    ANSWERING_DONE, ANSWERING_HEAD, ANSWERING_NONE, ANSWERING_RELAY, LATE_CLAIM, LATE_COLLECT, LATE_HEAD, LATE_IDLE, SENDING_CLAIM,
    SENDING_COLLECT, SENDING_CONNECT, SENDING_DECIDE, SENDING_HEAD, SENDING_RELAY, SENDING_SENT,
)
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.exchange.flow cimport (
    FLOW_DECIDED, VERDICT_ALLOWED, VERDICT_BLOCKED, VERDICT_FAILED, VERDICT_UNDECIDED, Flow, Route,
)
from soth_mitm._dataplane.http1.head_parser cimport (
    HEAD_MORE, HEAD_TOO_LARGE, head_error_text, parse_request_head, too_large_text,
)
from soth_mitm._dataplane.wire.head cimport HTTP_1_0, METHOD_CONNECT, METHOD_TRACE, TARGET_ABSOLUTE, Head
from soth_mitm._dataplane.http.hooks cimport HOOK_FAILED, HOOK_PENDING, Hooks
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.upstream.pool cimport Upstream
from soth_mitm._dataplane.exchange.responding cimport Responding
from soth_mitm._dataplane.exchange.transfer cimport MOVED_ALL, MOVED_MORE, MOVED_NONSENSE, MOVED_OVER, collect_request, move_request
from soth_mitm._dataplane.http1.upgrade cimport may_switch
from soth_mitm._dataplane.memory.view cimport View, is_view_of, view_bytes, view_of
from soth_mitm._dataplane.http1.encoder cimport forwards_left, request_head_bytes, traced_request

from soth_mitm.errors import WireError

cdef enum:
    # a request body in which more goes in or comes out is decoded in a thread: some tenths of a millisecond
    DECODED_HERE = 131072

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


cdef enum:
    MOST_REQUESTS = 16         # of one client that are begun in one turn of the loop


@cython.final
cdef class Exchange(Responding):
    """Requests of one client connection.

    `router(scheme, authority)` says where a request goes; it is asked when what requests name changes. `scheme` is None unless the request
    line has a URL; `authority` is that of the URL, or else Host, or empty. `on_end()` is called once, when the connection is gone and
    every hook has returned.
    """

    def __init__(self, Settings settings, Endpoint client, on_end, *, router not None):
        self.router = router

    def start(self):
        """Take over the client's endpoint, with what lies in its read buffer."""
        self.settings.arena.check_thread()
        self.client.callbacks = self
        if self.client.gone:
            self.on_closed(self.client, None)
            return
        if self.over:  # drained or aborted before it began
            return
        self.next_request()
        self.advance()
        if self.client.eof_delivered and not self.over:
            self.on_eof(self.client, True)
        self.client.resume_reading()

    cdef int advance(self) except -1:
        if self.running or self.over:
            self.again = True
            return 0
        self.running = True
        self.again = True
        self.begun = 0
        try:
            while self.again and not self.over:
                self.again = False
                if self.sending == SENDING_HEAD:
                    self.read_head()
                elif self.sending == SENDING_COLLECT:
                    self.collect()
                elif self.sending == SENDING_RELAY:
                    self.relay_request()
                if self.over:
                    # what was just done has ended it, and the upstream is gone
                    break
                if self.answering == ANSWERING_HEAD:
                    self.read_response_head()
                elif self.answering == ANSWERING_RELAY:
                    self.relay_response()
                if self.sending == SENDING_SENT and self.answering == ANSWERING_DONE and not self.over:
                    self.end_flow()
        finally:
            self.running = False
        if not self.client.gone:
            self.client.flush()
        if self.upstream is not None:
            self.upstream.flush()
        return 0

    # --- the request's way

    cdef int read_head(self) except -1:
        cdef Py_ssize_t size = self.client.read_buffer.size(), used
        cdef Head head
        if size == 0:
            return self.leave() if self.client.eof_delivered else 0
        if self.client.write_paused or self.unsettled >= self.settings.queue_limit:
            # who does not read his answers gets no more of them, and a handler that is behind is shown no more
            return self.client.pause_reading()
        if self.begun == MOST_REQUESTS:
            return self.later()
        head = Head()
        used = parse_request_head(head, self.client.read_buffer.data(), size, self.settings.head_limit, self.settings.most_fields,
                                  &self.scanned)
        if used == HEAD_MORE:
            if self.client.eof_delivered:
                return self.leave()
            self.client.read_buffer.shrink()
            if self.client_deadline.stage != LATE_HEAD or self.client_deadline.queue is None:
                self.client_deadline.set(self.settings.client_head, LATE_HEAD)
            return 0
        self.client_deadline.clear()
        self.scanned = 0
        if used > 0:
            self.settings.counters.bytes_from_clients += used
            self.client.read_buffer.consume(used)
            return self.open_flow(head)
        if used == HEAD_TOO_LARGE:
            return self.refuse(431, b"the request head " + too_large_text(head, self.settings.head_limit, self.settings.most_fields))
        return self.refuse(400, head_error_text(head.error).encode())

    cdef int open_flow(self, Head head) except -1:
        cdef Flow flow
        self.begun += 1
        self.answering = ANSWERING_NONE
        self.keep = head.keeps_alive() and not self.settings.draining
        self.find_route(head)
        flow = self.flow = Flow(self.settings, self, self.route, head)
        self.unsettled += 1
        if body_of_request(&flow.request_body, head, self.settings.head_limit, self.settings.most_fields) < 0:
            return self.refuse(400, body_error_text(flow.request_body.error).encode())
        if head.method == METHOD_CONNECT:
            # who wants a tunnel takes a new connection
            self.keep = False
            return self.explain(501, b"CONNECT must be the first request of its connection to the proxy")
        return self.begin_flow() if self.route.question is None else self.ask_connect()

    cdef int begin_flow(self) except -1:
        cdef Flow flow = self.flow
        cdef Head head = flow.request
        cdef bint at_head
        if self.route.pool is None and not self.route.observed:
            self.settings.counters.requests_refused += self.route.status == 400
            self.settings.counters.names_refused += self.route.status == 421
            return self.explain(self.route.status, self.route.reason)
        flow.upgrade = head.connection_upgrade and may_switch(head)
        if flow.hooks is None:
            return self.forward()
        flow.at_head = flow.request_body.state != BODY_DONE and (not self.settings.buffer_requests or flow.conversational())
        at_head = flow.at_head or flow.request_body.state == BODY_DONE
        flow.begin_upload()
        if flow.hooks.on_request is None or not self.settings.enforce:
            flow.ask_later = flow.hooks.on_request is not None
            # messages are shown as they come, and after the request
            at_head = at_head or flow.up is not None
            if not at_head and (flow.ask_later or flow.hooks.on_response is not None):
                flow.copy_request()
            elif flow.request_body.state != BODY_DONE:
                flow.at_head = True
            return self.forward()
        if at_head:
            return self.decide()
        flow.bounded = self.settings.reject_overflow or self.settings.refuse_incomplete
        if flow.bounded and head.content_length > self.settings.body_limit:
            return self.reject()
        if head.expect_continue and head.version != HTTP_1_0:
            flow.continued = True
            self.client.send_bytes(CONTINUE)
        self.sending = SENDING_COLLECT
        self.client_deadline.set(self.settings.body_buffer, LATE_COLLECT)
        self.again = True
        return 0

    cdef int find_route(self, Head head) except -1:
        cdef View named = view_of(NULL, 0)
        scheme = None
        if head.form == TARGET_ABSOLUTE:
            named = head.span(head.authority, head.authority_len)
            scheme = "https" if head.https else "http"
        elif head.host >= 0:
            named = head.span(head.fields[head.host].value, head.fields[head.host].value_len)
        if self.routed is None or scheme != self.routed_scheme or not is_view_of(self.routed, named):
            self.routed = view_bytes(named)
            self.routed_scheme = scheme
            self.route = self.router(scheme, self.routed)
        return 0

    cdef int ask_connect(self) except -1:
        cdef Hooks hooks = self.settings.hooks
        cdef int outcome
        self.sending = SENDING_CONNECT
        outcome = hooks.run(hooks.on_connect, self.route.question, None, self)
        if outcome == HOOK_PENDING:
            self.unsettled += 1
            self.asking = hooks.pending
            return 0
        if self.over:
            return 0
        return self.take_route(None, hooks.error) if outcome == HOOK_FAILED else self.take_route(hooks.result, None)

    cdef int take_route(self, object answer, object error) except -1:
        cdef Route route = self.route.on_answer(answer, error)
        if route is None:
            return self.cut(error or self.settings.hooks.error)
        self.route = route
        if error is not None:
            # the next request asks again
            self.routed = None
        self.flow.take(route)
        return self.begin_flow()

    cdef int collect(self) except -1:
        cdef Flow flow = self.flow
        cdef Py_ssize_t limit = self.settings.body_limit
        cdef int moved = collect_request(flow, self.client)
        if moved == MOVED_NONSENSE:
            return self.refuse(400, body_error_text(flow.request_body.error).encode())
        if moved == MOVED_OVER:
            return self.reject()
        # a body of unknown length that has just reached the limit may be complete: its end tells
        if moved == MOVED_ALL or flow.request_body.payload_total > limit - (flow.request.content_length > limit):
            return self.decide()
        return 0

    cdef int decide(self) except -1:
        cdef tuple arguments
        self.sending = SENDING_DECIDE
        self.client_deadline.clear()
        if self.is_paced and self.end_wait():
            return 0
        self.flow.show_request()
        if self.settings.decode_apart is not None:
            arguments = self.flow.shown.decode_little(DECODED_HERE)
            if arguments is not None:
                self.unsettled += 1
                self.settings.decode_apart(arguments, self.decoded_apart)
                return 0
        return self.ask()

    def decoded_apart(self, result):
        """Go on with the body that was decoded. Called by the loop."""
        self.unsettled -= 1
        if self.over or self.sending != SENDING_DECIDE:
            self.check_end()
            return
        if result is not None:
            self.flow.shown.decoded(result)
        self.ask()
        self.advance()

    cdef int ask(self) except -1:
        cdef int outcome
        if self.settings.refuse_incomplete and self.refuse_unseen():
            return 0
        outcome = self.settings.hooks.run(self.settings.hooks.on_request, self.flow.shown, None, self)
        if outcome == HOOK_PENDING:
            self.unsettled += 1
            return 0
        if self.over:
            return 0
        if outcome == HOOK_FAILED:
            return self.undecided(self.settings.hooks.error)
        return self.decided(self.settings.hooks.result)

    cdef int refuse_unseen(self) except -1:
        problem = self.flow.shown.body_problem
        if problem is None:
            return 0
        if problem == "conversation":
            self.refuse(415, b"what follows the head of this request cannot be inspected before it is forwarded (body.incomplete)")
        elif problem == "undecodable":
            self.refuse(415, b"the request body cannot be decoded (body.incomplete): " + self.flow.shown.decode_error.encode())
        elif problem == "late":
            self.refuse(408, b"the request body was not complete in time (body.incomplete, body.buffer_timeout_ms)")
        else:
            self.reject()
        return 1

    cdef int on_hook_result(self, object result, object error) except -1:
        self.unsettled -= 1
        if self.over or self.sending not in (SENDING_CONNECT, SENDING_DECIDE):
            return self.check_end()
        if self.sending == SENDING_CONNECT:
            self.asking = None
            self.take_route(result, error)
            self.advance()
            # it may have said so much meanwhile that it was held
            return 0 if self.over else self.client.resume_reading()
        if error is None:
            self.decided(result)
        else:
            self.undecided(error)
        return self.advance()

    cdef int decided(self, object decision) except -1:
        if decision is self.settings.allow:
            return self.allowed()
        # by its exact type: what only says that it is a decision (a mock of one) has no answer to give
        if type(decision) is not self.settings.decision_type:
            self.settings.hooks.misjudged(decision)
            return self.fail_closed(self.settings.hooks.error, b"the policy handler returned no decision")
        if not decision.is_block:
            return self.allowed()
        self.settings.counters.requests_blocked += 1
        self.flow.verdict = VERDICT_BLOCKED
        self.flow.status = decision.status
        self.flow.tell_observer(FLOW_DECIDED)
        return self.answer(decision.status, decision.body, decision.headers)

    cdef int allowed(self) except -1:
        self.settings.counters.requests_allowed += 1
        self.flow.verdict = VERDICT_ALLOWED
        self.flow.tell_observer(FLOW_DECIDED)
        return self.forward()

    cdef int undecided(self, object error) except -1:
        if self.settings.hooks.block_on_failure:
            return self.fail_closed(error, b"the policy handler failed and handler.failure_policy is block")
        if self.settings.meant_to_block(error):
            return self.fail_closed(error, b"the policy handler failed to make the block that it wanted")
        if self.settings.hooks.cuts(error):
            return self.fail_closed(error, b"")
        self.flow.verdict = VERDICT_UNDECIDED
        self.flow.tell_observer(FLOW_DECIDED)
        return self.forward()

    cdef int fail_closed(self, object error, bytes text) except -1:
        self.flow.verdict = VERDICT_FAILED
        self.flow.cause = error
        self.flow.tell_observer(FLOW_DECIDED)
        if self.settings.hooks.cuts(error):
            return self.cut(error)
        self.settings.counters.requests_blocked += 1
        return self.explain(502, text)

    cdef int forward(self) except -1:
        if self.route.pool is None:
            # the next connection tries the upstream again
            self.keep = False
            return self.fail_upstream(self.route.status, self.route.reason)
        if forwards_left(self.flow.request) == 0:
            return self.answer_last()
        self.sending = SENDING_CLAIM
        if self.pin is not None and self.use_pin():
            return 0
        self.upstream_deadline.set(self.settings.claim, LATE_CLAIM)
        if self.can_repeat():
            return self.route.pool.claim(self)
        return self.route.pool.claim_fresh(self, self.settings.unsafe_idle)

    cdef int answer_last(self) except -1:
        # RFC 9110 section 7.6.2: it ends here, and is answered as by an origin
        if self.flow.request.method == METHOD_TRACE:
            return self.answer(200, traced_request(self.flow.request), ((b"Content-Type", b"message/http"),))
        return self.answer(200, b"", ())

    cdef int on_pool_ready(self, object upstream) except -1:
        cdef Upstream connection = <Upstream>upstream
        if self.over or self.sending != SENDING_CLAIM:
            return connection.pool.give_back(connection)
        self.upstream = connection
        if connection.facts is not self.flow.route.facts:
            self.flow.route.met(connection.facts)
        self.write_request()
        return self.advance()

    cdef int on_pool_failure(self, object error) except -1:
        if self.over or self.sending != SENDING_CLAIM:
            return 0
        if not isinstance(error, WireError):
            # a hook that had to be asked failed, and handler.recover_from_panics is off
            return self.cut(error)
        self.fail_upstream(error.status, str(error).encode())
        return self.advance()

    cdef int write_request(self) except -1:
        cdef Flow flow = self.flow
        cdef bytes head = request_head_bytes(flow.request, flow.upgrade, flow.route.authority)
        self.upstream.send_bytes(head)
        self.settings.counters.bytes_to_upstreams += len(head)
        if flow.collected is not None:
            flow.collected.rewind()
        self.upstream_scanned = 0
        self.interims = 0
        self.upstream_bytes_before = self.upstream.bytes_in
        self.answering = ANSWERING_HEAD
        self.sending = SENDING_RELAY
        self.again = True
        if flow.request_body.state == BODY_DONE and flow.collected is None:
            return self.request_sent()
        if flow.ask_later and flow.payload is None:
            self.upstream.flush()
            flow.ask_afterwards()
            if self.over:
                return 0
        self.upstream_deadline.clear()
        self.await_upload()
        return 0

    cdef int relay_request(self) except -1:
        cdef int moved = move_request(self.flow, self.client, self.upstream)
        if self.over:
            return 0
        if moved == MOVED_NONSENSE:
            return self.refuse(400, body_error_text(self.flow.request_body.error).encode())
        if moved == MOVED_OVER:
            return self.reject()
        if moved == MOVED_ALL:
            return self.request_sent()
        if moved == MOVED_MORE:
            self.await_upload()
            return self.later()
        self.await_upload()
        # not before its buffer is empty: one that is full holds it back by itself
        return self.client.pause_reading() if self.has_enough() else self.client.resume_reading()

    cdef int request_sent(self) except -1:
        cdef Flow flow = self.flow
        self.sending = SENDING_SENT
        self.again = True
        self.client_deadline.clear()
        if self.answering == ANSWERING_HEAD:
            self.on_writable(self.upstream, not self.upstream.write_paused)
        if flow.ask_later:
            self.upstream.flush()
            flow.ask_afterwards()
        elif self.answering == ANSWERING_DONE:
            # the flow ends here, and its upstream connection leaves us
            self.upstream.flush()
        return 0

    cdef int next_request(self) except -1:
        self.again = True
        if self.client.read_buffer.size() == 0:
            self.client_deadline.set(self.settings.client_idle, LATE_IDLE)
        return self.client.resume_reading()

    # --- what the endpoints say

    cdef int on_data(self, object endpoint) except -1:
        return self.advance()
