"""One request and its response: decide, acquire an upstream's stream, relay both ways, retry, deadlines, end.

The two directions are independent: an early response is relayed while the upload goes on. Each entry from outside (content, a deadline, a
hook's answer, a stream from the pool) changes a state and calls `advance`, which moves both directions as far as they go.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.time cimport monotonic
from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.body_buffer cimport BodyCopy, BufferedBody, new_body_copy
from soth_mitm._dataplane.exchange.credentials cimport UploadSearch
from soth_mitm._dataplane.exchange.decision cimport (
    JUDGED_ABORT, JUDGED_ALLOW, JUDGED_BLOCK, JUDGED_FORWARD, JUDGED_NO_DECISION, JUDGED_RESPOND, JUDGED_UNDECIDED, judge,
    judge_failure, judgement_text,
)
from soth_mitm._dataplane.exchange.exchange_state cimport (
    EXCHANGE_ANSWERED, EXCHANGE_DECIDED, MOST_PIECES, MOVED_ALL, MOVED_MISDIRECTED, MOVED_MORE, MOVED_NONSENSE, MOVED_OVER, MOVED_SOME,
    VERDICT_ABORTED, VERDICT_ALLOWED, VERDICT_ANSWERED, VERDICT_BLOCKED, VERDICT_UNDECIDED, ExchangeState,
)
from soth_mitm._dataplane.exchange.flow_recording cimport ANSWERED_BY_HANDLER, ANSWERED_BY_UPSTREAM
from soth_mitm._dataplane.exchange.exchange_responses cimport ExchangeResponses
from soth_mitm._dataplane.exchange.exchange_stages cimport ExchangeStages
from soth_mitm._dataplane.exchange.route cimport Route
from soth_mitm._dataplane.exchange.states cimport (
    COUNT_REFUSED, COUNT_UPSTREAM_TIMEOUT, EXPIRE_ANSWER, EXPIRY_ACQUIRE, EXPIRY_DOWNLOAD, EXPIRY_HALF_CLOSED, EXPIRY_HTTP2_DOWNLOAD,
    EXPIRY_HTTP2_NO_STREAMS, EXPIRY_HTTP2_RESPONSE, EXPIRY_NO_CONTINUE, EXPIRY_RESPONSE, EXPIRY_UPLOAD, EXPIRY_UPLOAD_NOT_TAKEN,
    INPUT_ACQUIRE, INPUT_AGAIN, INPUT_ASK_ROUTE, INPUT_BEGIN, INPUT_COLLECT, INPUT_COMPLETE, INPUT_DECIDE, INPUT_EXPECT, INPUT_RETRY,
    INPUT_SEND, INPUT_SENT, REQUEST_ACQUIRE, REQUEST_COLLECT, REQUEST_DECIDE, REQUEST_RELAY, REQUEST_RESOLVE, REQUEST_ROUTE,
    REQUEST_SENT, RESPONSE_COLLECT, RESPONSE_DECIDE, RESPONSE_DECIDE_BODY, RESPONSE_DONE, RESPONSE_HEAD, RESPONSE_RELAY, STAGE_ACQUIRE,
    STAGE_COLLECT, STAGE_DOWNLOAD, STAGE_HOLD, STAGE_RESPONSE, expiry_rule,
)
from soth_mitm._dataplane.exchange.taps cimport FRAMED_AT_ONCE, MOST_STEPS, FrameTap, new_frame_tap
from soth_mitm._dataplane.http.changes cimport trailers_without
from soth_mitm._dataplane.http.counters cimport (
    END_BLOCKED, END_CUT_BY_CLIENT, END_CUT_BY_UPSTREAM, END_REFUSED, END_UPSTREAM_ERROR, END_UPSTREAM_TIMEOUT,
)
from soth_mitm._dataplane.http.hooks cimport HOOK_DONE, HOOK_FAILED, HOOK_PENDING, Hooks
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport (
    ANY_LENGTH, LENGTH_AS_IS, NO_ROOM_LIMIT, PROCESSED_HTTP1_ONLY, PROCESSED_NOT, PROCESSED_UNLIKELY, HttpConnection, Piece, Stream,
)
from soth_mitm._dataplane.memory.buffer cimport BLOCK_SIZE
from soth_mitm._dataplane.memory.ledger cimport LEDGER_FLOW, note
from soth_mitm._dataplane.memory.view cimport View, view_bytes, view_of
from soth_mitm._dataplane.transport.callbacks cimport PAUSE_DECISION, PAUSE_PEER_SLOW, PAUSE_TURN
from soth_mitm._dataplane.wire.decode cimport CODED_AT_ONCE
from soth_mitm._dataplane.wire.forwards cimport forwards_left, traced_request
from soth_mitm._dataplane.wire.head cimport METHOD_TRACE, Head
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits
from soth_mitm._dataplane.wire.streams cimport STREAM_GRPC, STREAM_GRPC_WEB_TEXT, STREAM_NONE, stream_of
from soth_mitm._dataplane.wire.target cimport is_idempotent

from soth_mitm.errors import Http2StreamReset, WireError


cdef enum:
    # a request body in which more goes in or comes out is decoded in a thread: some tenths of a millisecond
    DECODED_HERE = 131072
    MOST_INTERIMS = 64         # before one response: each begins its time anew
    MOST_UNSENT = 1048576      # bytes that wait for the client, from which on it is sent no more of them


@cython.final
cdef class Exchange(ExchangeStages):
    """One request and its response."""

    # ---- states

    cdef int start(self) except -1:
        # what is called back meanwhile changes the state, and moves nothing yet
        self.is_running = True
        try:
            if self.route.question is None:
                self.begin()
            else:
                self.ask_route()
        finally:
            self.is_running = False
        return self.advance()

    cdef int advance(self) except -1:
        if self.is_running or self.is_over():
            self.runs_again = True
            return 0
        self.is_running = True
        self.runs_again = True
        try:
            while self.runs_again and not self.is_over():
                self.runs_again = False
                if self.request_state == REQUEST_COLLECT:
                    self.collect()
                elif self.request_state == REQUEST_RELAY:
                    self.relay_request()
                if self.own_answer is not None:
                    self.relay_answer()
                elif self.response_state == RESPONSE_RELAY and not self.is_over():
                    self.relay_response()
                elif self.response_state == RESPONSE_COLLECT and not self.is_over():
                    self.collect_response()
                if self.request_state == REQUEST_SENT and self.response_state == RESPONSE_DONE and not self.is_over():
                    self.finish()
        finally:
            self.is_running = False
        if not self.is_over():
            self.client.flush()
            if self.upstream is not None:
                self.upstream.flush()
        return 0

    cdef int take_later(self) except -1:
        if not self.is_turn_due:
            self.is_turn_due = True
            self.settings.hooks.loop.call_soon(self.take_turn)
        return 0

    def take_turn(self):
        """Go on with what one turn of the loop was too short for. Called by the loop."""
        cdef bint was_behind = self.is_behind
        self.is_turn_due = False
        if self.is_over():
            return
        self.is_behind = False
        self.advance()
        if was_behind and not self.is_behind and not self.is_over() and self.upstream is not None:
            self.resume_upstream(PAUSE_TURN)

    # ---- the request, up to the decision

    cdef int begin(self) except -1:
        cdef Head head = self.request
        cdef bint at_head
        if self.recording is not None:
            self.record_request()
        if self.route.pool is None and not self.route.observed:
            self.settings.counters.requests_refused += self.route.status == 400
            self.settings.counters.names_refused += self.route.status == 421
            self.settings.counters.http2_misdirected += self.route.status == 421 and self.client.is_multiplexed()
            self.note_fault(END_REFUSED if self.route.status in (400, 421) else END_BLOCKED)
            return self.explain(self.route.status, self.route.reason)
        if self.hooks is None:
            return self.forward()
        # whatever streams.types says: a body that could be collected is
        self.is_decided_at_head = self.has_body and (
            not self.settings.buffer_requests or self.keep_upgrade or stream_of(head, None) == STREAM_GRPC)
        at_head = self.is_decided_at_head or not self.has_body
        if (self.hooks.on_stream_chunk is not None or self.hooks.filtered) and not self.keep_upgrade and self.has_body:
            if not STREAM_GRPC <= (stream := stream_of(head, self.settings.stream_types)) <= STREAM_GRPC_WEB_TEXT:
                pass
            elif self.is_filtered(stream):
                self.filters_request = True
            elif self.hooks.on_stream_chunk is not None:
                self.up = new_frame_tap(self.settings, self.own_share(), stream, head, "to_upstream")
        if self.hooks.on_request is None or not self.settings.enforce:
            self.asks_later = self.hooks.on_request is not None
            # messages are shown as they come, and after the request
            at_head = at_head or self.up is not None or self.filters_request
            if not at_head and (
                    self.asks_later or self.hooks.on_response is not None or self.hooks.on_response_head is not None):
                self.request_copy = new_body_copy(self.settings.body_limit)
            elif self.has_body:
                self.is_decided_at_head = True
            return self.forward()
        if at_head:
            return self.decide()
        self.is_bounded = self.settings.reject_overflow or self.settings.refuse_incomplete
        if self.is_bounded and head.content_length > self.settings.body_limit:
            return self.reject()
        if head.expect_continue:
            self.sent_continue = self.client.send_continue()
        self.move_request(INPUT_COLLECT)
        self.set_client_deadline(self.settings.body_buffer, STAGE_COLLECT)
        self.runs_again = True
        return 0

    cdef int ask_route(self) except -1:
        cdef Hooks hooks = self.settings.hooks
        cdef int outcome
        self.move_request(INPUT_ASK_ROUTE)
        outcome = hooks.run(hooks.on_connect, self.route.question, None, self)
        if outcome == HOOK_PENDING:
            self.pending_calls += 1
            self.asking = hooks.pending
            return 0
        if self.is_over():
            return 0
        return self.take_route(None, hooks.error) if outcome == HOOK_FAILED else self.take_route(hooks.result, None)

    cdef int take_route(self, object answer, object error) except -1:
        cdef Route route = self.route.on_answer(answer, error)
        if route is None:
            return self.abort(error or self.settings.hooks.error)
        self.connection.on_route(route, error is not None)
        self.route = route
        self.hooks = self.settings.hooks if route.observed else None
        return self.begin()

    cdef int collect(self) except -1:
        cdef Py_ssize_t limit = self.settings.body_limit
        cdef View trailers = view_of(NULL, 0)
        if self.buffered is None:
            self.buffered = self.client.new_buffer(limit)
        self.charge(self.client.collect_into(self.buffered, &trailers))
        if trailers.len:
            self.request_trailers = view_bytes(trailers)
        self.client.take_content()
        if self.is_bounded and self.client.content_total() > limit:
            return self.reject()
        if self.client.is_malformed():
            return self.refuse(400, self.client.error_text().encode())
        if not self.client.is_complete():
            self.reserve(True)
            # a body of unknown length that has just reached the limit may be complete: its end tells
            if self.client.content_total() <= limit - (self.request.content_length > limit):
                return self.abort_if_cut()
        return self.decide() if not self.is_over() and self.request_state == REQUEST_COLLECT else 0

    cdef int decide(self) except -1:
        cdef tuple arguments
        if self.recording is not None:
            self.record_collected()
        self.move_request(INPUT_DECIDE)
        if self.client_deadline is not None:
            self.client_deadline.clear()
        if self.pressure:
            # it is decided on as it is
            if self.share is not None:
                self.share.stop_waiting()
            self.pressure = 0
            self.set_pauses()
            if self.is_over():
                return 0
        self.show_request()
        if self.settings.decode_apart is not None:
            arguments = self.request_view.decode_little(DECODED_HERE)
            if arguments is not None:
                self.pending_calls += 1
                self.settings.decode_apart(arguments, self.decoded_apart)
                return 0
        return self.ask()

    def decoded_apart(self, result):
        """Go on with the body that was decoded. Called by the loop."""
        self.pending_calls -= 1
        if self.is_over() or self.request_state != REQUEST_DECIDE:
            self.settle()
            return
        if result is not None:
            self.request_view.decoded(result)
        self.ask()
        self.advance()

    cdef int ask(self) except -1:
        cdef Hooks hooks = self.settings.hooks
        cdef int outcome
        if self.settings.refuse_incomplete and self.refuse_incomplete():
            return 0
        outcome = hooks.run(hooks.on_request, self.request_view, None, self)
        if outcome == HOOK_PENDING:
            self.pending_calls += 1
            self.asking = hooks.pending
            return 0
        if self.is_over():
            return self.close_ignored(hooks.result) if outcome == HOOK_DONE else 0
        if outcome == HOOK_FAILED:
            return self.decided(judge_failure(self.settings, hooks.error), None, hooks.error)
        return self.decided(judge(self.settings, hooks.result), hooks.result, None)

    cdef int refuse_incomplete(self) except -1:
        problem = self.request_view.body_problem
        if problem is None:
            return 0
        if problem == "conversation":
            self.refuse(415, b"what follows the head of this request cannot be inspected before it is forwarded (body.incomplete)")
        elif problem == "undecodable":
            self.refuse(415, b"the request body cannot be decoded (body.incomplete): " + self.request_view.decode_error.encode())
        elif problem == "late":
            self.refuse(408, b"the request body was not complete in time (body.incomplete, body.buffer_timeout_ms)")
        else:
            self.reject()
        return 1

    cdef int on_hook_result(self, object result, object error) except -1:
        self.pending_calls -= 1
        self.asking = None
        if not self.is_over() and self.response_state in (RESPONSE_DECIDE, RESPONSE_DECIDE_BODY):
            self.on_response_judged(result, error)
            return self.advance()
        if self.is_over() or self.request_state not in (REQUEST_ROUTE, REQUEST_DECIDE):
            self.close_ignored(result)
            return self.settle()
        if self.request_state == REQUEST_ROUTE:
            self.take_route(result, error)
        elif error is None:
            self.decided(judge(self.settings, result), result, None)
        else:
            self.decided(judge_failure(self.settings, error), None, error)
        return self.advance()

    cdef int decided(self, int judgement, object decision, object error) except -1:
        if judgement == JUDGED_ALLOW:
            self.settings.counters.requests_allowed += 1
            self.verdict = VERDICT_ALLOWED
            self.tell_observer(EXCHANGE_DECIDED)
            return self.forward()
        if judgement == JUDGED_BLOCK:
            self.settings.counters.requests_blocked += 1
            self.verdict = VERDICT_BLOCKED
            self.status = decision.status
            self.tell_observer(EXCHANGE_DECIDED)
            return self.answer(decision.status, decision.body, decision.headers)
        if judgement == JUDGED_RESPOND:
            body = decision.body
            if type(body) is not bytes and self.begins_upgrade(decision.status):
                self.close_ignored(decision)
                body = b""
            if type(body) is not bytes:
                return self.answer_from(decision)
            self.settings.counters.requests_answered += 1
            self.verdict = VERDICT_ANSWERED
            self.status = decision.status
            self.tell_observer(EXCHANGE_DECIDED)
            return self.answer(decision.status, body, decision.headers)
        if judgement == JUDGED_FORWARD:
            return self.forward() if self.change(decision) else 0
        if judgement == JUDGED_ABORT:
            self.settings.counters.requests_aborted += 1
            self.verdict = VERDICT_ABORTED
            self.tell_observer(EXCHANGE_DECIDED)
            self.client.hang_up(decision.how == "reset")
            return self.terminate()
        if judgement == JUDGED_UNDECIDED:
            self.verdict = VERDICT_UNDECIDED
            self.tell_observer(EXCHANGE_DECIDED)
            return self.forward()
        if judgement == JUDGED_NO_DECISION:
            self.settings.hooks.misjudged(decision)
            error = self.settings.hooks.error
        return self.fail_closed(error, 502, judgement_text(judgement))

    # ---- the request, from the decision on

    cdef int forward(self) except -1:
        if self.way is None:
            self.way = self.route
        if self.way.pool is None:
            # the client's next connection tries the upstream again
            self.is_last = True
            return self.fail_upstream(self.way.status, self.way.reason)
        if forwards_left(self.sent) == 0:
            return self.answer_last()
        if self.settings.credentials is not None and not self.settle_credentials():
            return 0
        return self.acquire()

    def on_values(self, values, why):
        """Go on with the values that the request needs; None: `why` there are none. Called by the loop."""
        if self.is_over() or self.request_state != REQUEST_RESOLVE:
            return
        if values is None:
            self.refuse_unavailable(why)
        elif self.take_values(values):
            self.acquire()
        self.advance()

    cdef int acquire(self) except -1:
        cdef Stream stream
        self.move_request(INPUT_ACQUIRE)
        # a client of HTTP/2 may be given a stream of HTTP/2 for its WebSocket, and that is known when there is one
        self.pool = self.way.pool.pool_for(self.keep_upgrade and not self.client.is_multiplexed())
        if self.connection.has_reserved_of(self.pool):
            stream = self.connection.open_reserved(self)
            if stream is not None:
                return self.on_pool_ready(stream)
            self.is_last = True
            return self.fail_upstream(
                502, f"{self.pool.origin} closed the connection that this client had authenticated on".encode())
        return self.ask_pool()

    cdef int ask_pool(self) except -1:
        if self.can_repeat():
            self.pool.acquire(self)
        else:
            self.pool.acquire_fresh(self, self.settings.unsafe_idle)
        # most often it has a stream at hand
        return self.set_upstream_deadline(self.settings.claim, STAGE_ACQUIRE) if self.awaits_pool() else 0

    cdef bint awaits_pool(self) noexcept:
        return self.request_state == REQUEST_ACQUIRE and self.upstream is None and not self.has_ended

    cdef int answer_last(self) except -1:
        # RFC 9110 section 7.6.2: it ends here, and is answered as by an origin
        if self.sent.method == METHOD_TRACE:
            # what the client sent: it is not told what the handler has put in
            return self.answer(200, traced_request(self.request), ((b"Content-Type", b"message/http"),))
        return self.answer(200, b"", ())

    cdef int on_pool_ready(self, object stream) except -1:
        cdef Stream upstream = <Stream>stream
        cdef object facts
        if self.is_over() or self.request_state != REQUEST_ACQUIRE:
            return upstream.release(None, None, None)
        if self.keep_upgrade and upstream.is_multiplexed() and not (self.client.is_multiplexed() and upstream.can_switch()):
            upstream.release(None, None, None)
            if self.pool.pool_for(True) is self.pool:
                self.fail_upstream(502, f"{self.pool.origin} offers no WebSocket over HTTP/2".encode())
                return self.advance()
            self.pool = self.pool.pool_for(True)
            return self.ask_pool()
        self.upstream = upstream
        facts = upstream.connection().facts
        if facts is not self.way.facts:
            self.way.set_upstream_info(facts)
        if self.recording is not None:
            self.record_upstream()
        self.send_request()
        return self.advance()

    cdef int on_pool_failure(self, object error) except -1:
        if self.is_over() or self.request_state != REQUEST_ACQUIRE:
            return 0
        if not isinstance(error, WireError):
            # a hook that had to be asked failed, and handler.recover_from_panics is off
            return self.abort(error)
        if self.recording is not None:
            self.record_no_upstream(error)
        self.fail_upstream(error.status, str(error).encode())
        return self.advance()

    cdef int send_request(self) except -1:
        cdef int64_t length
        cdef HeadEdits edits = self.websocket_edits()
        if self.terms is not None:
            self.search_upload()
            edits = self.request_edits(edits)
        self.request_is_wire = (
            self.own_request is None and self.upload_search is None and not self.redacts() and not self.may_drop_trailers()
            and self.client.can_forward_wire(self.upstream))
        if self.request_is_wire:
            length = LENGTH_AS_IS
        elif self.own_request is not None:
            length = self.own_request.length()
            self.own_request.rewind()
        elif not self.client.is_complete():
            length = self.request.content_length if self.request.content_length >= 0 else ANY_LENGTH
        else:
            # trailers need a framing that has room for them
            length = self.client.content_total() if self.trailers_to_send() is None else ANY_LENGTH
        if self.body_strings is not None:
            length = self.filled_length
        if self.filters_request:
            if not self.stage_request():
                return 0
            self.request_is_wire = False
            length = ANY_LENGTH
            edits = self.up_stages.head_edits(edits)
        self.settings.counters.pairings[2 * <int>self.client.is_multiplexed() + self.upstream.is_multiplexed()] += 1
        self.upstream.send_request(
            self.sent if self.filled is None else self.filled, self.way.authority, self.keep_upgrade, length, edits)
        if self.buffered is not None:
            self.buffered.rewind()
        self.interims = 0
        self.move_response(INPUT_EXPECT)
        self.move_request(INPUT_SEND)
        self.runs_again = True
        if self.buffered is None and self.own_request is None and self.client.is_complete():
            return self.request_sent()
        if self.asks_later and self.request_copy is None:
            self.upstream.flush()
            self.ask_afterwards()
            if self.is_over():
                return 0
        # a reserved stream was not waited for
        self.clear_upstream_deadline()
        return self.await_upload()

    cdef int relay_request(self) except -1:
        cdef int moved = self.move_content()
        if self.is_over() or self.request_state != REQUEST_RELAY:
            return 0
        if self.upload_search is not None and self.up_stages is None:
            self.count_search()
        if moved == MOVED_NONSENSE:
            return self.refuse(400, self.client.error_text().encode())
        if moved == MOVED_OVER:
            return self.reject()
        if moved == MOVED_ALL and self.upload_search is not None:
            self.upload_search.send_rest(self.upstream)
            if self.upload_search.has_found() or (
                    self.request_trailers is not None and self.terms.forbids(self.request_trailers)):
                moved = MOVED_MISDIRECTED
        if moved == MOVED_MISDIRECTED:
            return self.refuse_misdirected()
        if moved == MOVED_ALL:
            return self.request_sent()
        self.await_upload()
        return self.take_later() if moved == MOVED_MORE else 0

    cdef int move_content(self) except -1:
        cdef int moved
        cdef bint all_sent
        if self.own_request is not None:
            return self.send_own()
        if self.up_stages is not None:
            return self.relay_staged_request()
        if self.buffered is not None:
            all_sent = self.send_buffered(self.buffered, self.upstream, self.request_is_wire)
            if self.up is not None and not self.show_buffered():
                # a handler that is behind is waited for, and others have their turn
                return MOVED_SOME if self.has_ended or self.pressure else MOVED_MORE
            if not all_sent:
                return MOVED_MISDIRECTED if self.upload_search is not None and self.upload_search.has_found() else MOVED_SOME
            if not self.client.is_complete() or self.has_response() or not (
                    self.upstream.can_say_unprocessed() or is_idempotent(
                        self.sent.method, self.sent.base(), self.sent.method_len)):
                self.forget_buffered()
        moved = self.relay(self.client, self.upstream, self.up, self.request_copy, True)
        if moved == MOVED_ALL:
            self.end_upload()
        elif moved == MOVED_SOME and not self.is_over() and not self.client.has_content():
            self.abort_if_cut()
        return moved

    cdef bint send_buffered(self, BufferedBody buffered, Stream sink, bint is_wire) except -1:
        cdef char* block = NULL
        cdef Py_ssize_t room, framing_sent
        cdef View piece, trailers
        # a response that was held goes to the client, which may get no value
        cdef UploadSearch search = self.upload_search if sink is self.upstream else None
        if not is_wire:
            while not buffered.is_sent():
                room = max(sink.room(), <Py_ssize_t>0)
                if room and sink.is_write_paused():
                    return False
                framing_sent = buffered.framing_sent
                # decoded, it may become a thousand times as much
                buffered.next_content(min(room, <Py_ssize_t>(CODED_AT_ONCE if self.leaves_plain else BLOCK_SIZE)), &piece, &trailers)
                if room == 0 and framing_sent == buffered.framing_sent:
                    # an end needs no room, and this is content
                    sink.await_room()
                    return False
                if search is None:
                    sink.send_content(piece.ptr, piece.len)
                else:
                    search.send(sink, piece.ptr, piece.len)
                    if search.has_found():
                        return False
            return True
        if buffered.framing is not None and not buffered.is_sent():
            block = self.settings.arena.take_block(BLOCK_SIZE)
        try:
            while not buffered.is_sent():
                if sink.is_write_paused():
                    return False
                buffered.next_piece(block, BLOCK_SIZE, &piece)
                sink.send_wire(piece.ptr, piece.len)
                if piece.len == BLOCK_SIZE:
                    # before the next one: only then it is known whether the other side takes it
                    sink.flush()
            return True
        finally:
            if block != NULL:
                self.settings.arena.give_block(block, BLOCK_SIZE)

    cdef bint show_buffered(self) except -1:
        """Push frames of what was sent on, as many as one turn of the loop may; true when they are all that it has."""
        cdef bint is_all = False
        if not self.pressure:
            is_all = self.frame_buffered()
            if self.up.found:
                # traffic first, then the handler
                self.upstream.flush()
                self.push_frames(self.up)
        return is_all and not self.has_ended and not self.is_over()

    cdef bint frame_buffered(self) except -1:
        # what is sent once more was shown before
        cdef FrameTap up = self.up
        cdef Py_ssize_t step
        cdef int steps = 0
        while True:
            up.frame_decoded()
            if up.framer is None:
                self.up_at = max(self.up_at, self.buffered.content_sent)
            if up.decoded is None and self.up_at >= self.buffered.content_sent:
                return True
            if steps == MOST_STEPS or up.has_enough():
                return False
            step = min(self.buffered.content_sent - self.up_at, <Py_ssize_t>FRAMED_AT_ONCE)
            up.observe(view_of(PyBytes_AS_STRING(self.buffered.content.content) + self.up_at, step))
            self.up_at += step
            steps += 1

    cdef int request_sent(self) except -1:
        if self.has_body and not self.request_is_wire:
            trailers = self.trailers_to_send()
            self.settings.counters.trailers_dropped += trailers != self.request_trailers
            self.upstream.send_end(trailers)
        self.move_request(INPUT_SENT)
        if self.recording is not None:
            self.recording.sent = self.recording.since_began()
        self.runs_again = True
        if self.client_deadline is not None:
            self.client_deadline.clear()
        if self.response_state == RESPONSE_HEAD:
            self.on_stream_writable(self.upstream, not self.upstream.is_write_paused())
        if self.asks_later:
            self.upstream.flush()
            self.ask_afterwards()
        elif self.response_state == RESPONSE_DONE:
            # the exchange ends here, and its upstream's stream leaves it
            self.upstream.flush()
        return 0

    # ---- the response, from the upstream's head to what the client is sent

    cdef int on_head(self, Stream stream, Head head) except -1:
        cdef bytes objection
        if self.is_over() or stream is not self.upstream or self.response_state != RESPONSE_HEAD:
            return 0
        if self.redacts():
            head = self.without_values(head)
            if head is None:
                return self.advance()
        if self.recording is not None and (head.status >= 200 or head.status == 101):
            self.record_head(head)
        objection = self.client.objection_to(head) if self.keep_upgrade else b""
        if objection:
            self.fail_upstream(502, objection)
        elif head.status == 101:
            self.take_switch(head)
        elif head.status >= 200:
            self.take_response(head)
        else:
            self.interims += 1
            if self.interims > MOST_INTERIMS:
                self.fail_upstream(502, b"the upstream sent more than %d interim responses" % MOST_INTERIMS)
                return self.advance()
            if self.request_state == REQUEST_SENT:
                # it says that it is at work: its time begins anew
                self.on_stream_writable(stream, not stream.is_write_paused())
            if head.status == 100 and self.sent_continue:
                pass
            elif self.client.unsent_total() > MOST_UNSENT:
                # nothing holds them back, and a response is understood without them
                self.settings.counters.interims_dropped += 1
            else:
                self.strip_alternatives(head)
                if self.recording is not None:
                    self.record_interim(head)
                self.client.send_interim(head)
        return self.advance()

    cdef int take_response(self, Head head) except -1:
        if not head.keeps_alive() and (
                self.request_state != REQUEST_SENT or self.connection.has_reserved(self.upstream.connection())):
            # what is left of the upload will have nowhere to go
            self.is_last = True
        self.forget_buffered()
        self.response = head
        self.charge_head(head)
        self.strip_alternatives(head)
        if self.decides_response():
            return self.ask_about_head(head)
        self.status = head.status
        self.relayed = head
        return self.begin_response()

    cdef int take_switch(self, Head head) except -1:
        if self.refuse_switch(head):
            return 0
        if not self.decides_response():
            return self.switch_protocols(head)
        self.strip_alternatives(head)
        return self.ask_about_head(head)

    cdef int begin_own_answer(self) except -1:
        return ExchangeResponses.begin_own_answer(self) if self.relayed is None else self.begin_response()

    cdef int begin_response(self) except -1:
        cdef Head head = self.relayed
        cdef int64_t length = LENGTH_AS_IS
        cdef HeadEdits edits = None
        cdef int stream
        if self.hooks is not None:
            stream = stream_of(head, self.settings.stream_types)
            self.is_streaming = stream != STREAM_NONE
            if self.is_streaming:
                if self.own_answer is None and self.held_body is None and self.is_filtered(stream) and not self.upstream.is_complete():
                    if not self.stage_response(stream):
                        return 0
                elif self.hooks.on_stream_chunk is not None or (self.recording is not None and self.records_frames(stream)):
                    self.down = new_frame_tap(self.settings, self.own_share(), stream, head, "to_client")
            elif self.hooks.on_response is not None:
                self.response_copy = (
                    new_body_copy(self.settings.body_limit) if self.held_body is None else self.held_body.content)
            elif (self.held() and self.buffered is None and self.held_body is None and self.up is None and self.client.is_complete()
                    and self.settings.enforce):
                # no chunk is to come that would carry it
                self.request_view = None
                self.refund(self.held())
        self.tell_observer(EXCHANGE_ANSWERED)
        if self.recording is not None:
            self.record_response(ANSWERED_BY_HANDLER if self.own_answer is not None else ANSWERED_BY_UPSTREAM)
        if self.own_answer is not None:
            self.client.send_response(head, None, self.own_length, self.is_last or not self.client.is_complete(), None)
            self.move_response(INPUT_BEGIN)
        else:
            if self.down_stages is not None:
                length = ANY_LENGTH
                edits = self.down_stages.head_edits(None)
            elif self.may_drop_trailers_of_response() or (
                    self.held_body is not None and self.response_trailers is not None and self.upstream.is_multiplexed()):
                # trailers need a framing that has room for them
                length = ANY_LENGTH
            self.client.send_response(head, self.upstream, length, self.is_last, edits)
            self.response_is_wire = length == LENGTH_AS_IS and self.upstream.can_forward_wire(self.client)
            self.upstream.forward_wire_to(self.client if self.response_is_wire else None)
            if self.held_body is not None:
                self.held_body.rewind()
            self.move_response(INPUT_BEGIN)
            self.await_download()
        self.runs_again = True
        if self.is_streaming:
            self.client.flush()
            return self.show_response_head()
        return 0

    cdef int relay_response(self) except -1:
        cdef int moved
        if self.held_body is not None:
            if not self.send_buffered(self.held_body, self.client, self.response_is_wire):
                # how long the client takes is no time of the upstream's
                self.clear_upstream_deadline()
                return 0 if self.is_over() else self.upstream.pause(PAUSE_PEER_SLOW)
            self.response_total = self.upstream.content_total()
            self.drop_held()
        if self.down_stages is None:
            moved = self.relay(self.upstream, self.client, self.down, self.response_copy, False)
        else:
            moved = self.relay_staged(self.down_stages, self.upstream, self.client)
        if self.is_over() or self.response_state == RESPONSE_DONE:
            return 0
        if moved == MOVED_ALL:
            return self.response_done()
        if moved == MOVED_MORE:
            # what comes meanwhile waits behind it, its end included
            self.is_behind = True
            self.upstream.pause(PAUSE_TURN)
            return self.take_later()
        if moved == MOVED_NONSENSE:
            self.settings.counters.upstream_errors += 1
            self.note_fault(END_CUT_BY_UPSTREAM)
            return self.truncate(ValueError(f"the upstream's response body is malformed: {self.upstream.error_text()}"))
        if moved == MOVED_OVER:
            self.settings.counters.upstream_errors += 1
            self.note_fault(END_CUT_BY_UPSTREAM)
            return self.truncate(ValueError("the response is longer than body.max_size_bytes (upstream.h2_response_overflow_mode)"))
        self.await_download()
        if self.client.is_write_paused() and self.client.room() > 0 and not self.reads_ahead():
            self.upstream.pause(PAUSE_PEER_SLOW)
        if self.down_stages is not None and self.down_stages.is_waiting():
            return 0
        # a decision held it back. What lies here has been taken: its end may be next
        return self.resume_upstream(PAUSE_DECISION) if self.upstream.paused() & PAUSE_DECISION else 0

    cdef int response_done(self) except -1:
        if not self.response_is_wire:
            trailers = trailers_without(self.response_trailers, self.response_names)
            self.settings.counters.trailers_dropped += trailers != self.response_trailers
            self.response_trailers = trailers
            self.client.send_end(trailers)
        self.move_response(INPUT_COMPLETE)
        self.clear_upstream_deadline()
        self.settings.counters.responses_relayed += 1
        self.client.flush()
        if self.request_state != REQUEST_SENT and (self.upstream is None or self.upstream.is_peer_gone()):
            # an early response, and nothing is left to send the rest of the request to
            if self.client.is_complete():
                self.stop_upload()
                return self.end_response(True)
            self.drop_upstream()
            self.client.refuse_rest()
            self.end_response(True)
            return self.terminate()
        if self.request_state == REQUEST_RELAY:
            self.await_upload()
        return self.end_response(True)

    # ---- content, either way

    cdef int relay(self, Stream source, Stream sink, FrameTap tap, BodyCopy copy, bint is_request) except -1:
        cdef Piece piece
        cdef Py_ssize_t most
        cdef int pieces = 0, moved
        cdef bint is_wire = self.request_is_wire if is_request else self.response_is_wire
        cdef bint is_full = False, is_over = False, is_misdirected = False
        cdef bint is_strict = (
            self.settings.http2_strict_overflow and not is_request and copy is not None and source.is_multiplexed())
        if tap is not None:
            tap.frame_decoded()
        if is_request:
            source.forward_wire_to(sink if is_wire else None)
        while True:
            if pieces == MOST_PIECES or (tap is not None and tap.has_enough()):
                is_full = True
                break
            most = FRAMED_AT_ONCE if tap is not None and tap.framer is not None else NO_ROOM_LIMIT
            if is_request and self.leaves_plain:
                # it may become a thousand times as much
                most = CODED_AT_ONCE
                if sink.is_write_paused():
                    most = 0
            if not is_wire:
                # an end needs no room
                most = max(min(most, sink.room()), <Py_ssize_t>0)
            if source.next_piece(&piece, most) <= 0:
                if most == 0 and source.has_content():
                    # what comes behind it waits, the end of the connection included
                    source.pause(PAUSE_PEER_SLOW)
                    sink.await_room()
                break
            pieces += 1
            if piece.content.len:
                if is_request:
                    is_over = self.is_bounded and source.content_total() > self.settings.body_limit
                    if is_over:
                        source.forward_wire_to(None)
                        break
                else:
                    self.response_total += piece.content.len
                    if is_strict and self.response_total > self.settings.body_limit:
                        is_over = True
                        break
                if is_request and self.upload_search is not None:
                    self.upload_search.send(sink, piece.content.ptr, piece.content.len)
                    is_misdirected = self.upload_search.has_found()
                    if is_misdirected:
                        break
                elif not is_wire:
                    sink.send_content(piece.content.ptr, piece.content.len)
                if copy is not None:
                    self.charge(copy.add(piece.content.ptr, piece.content.len))
                if self.recording is not None:
                    self.recording.note_content(not is_request, piece.content.ptr, piece.content.len)
                if tap is not None:
                    tap.observe(piece.content)
            if piece.trailers.len:
                if is_request:
                    self.request_trailers = view_bytes(piece.trailers)
                else:
                    self.response_trailers = view_bytes(piece.trailers)
        source.take_content()
        if is_over:
            return MOVED_OVER
        if is_misdirected:
            return MOVED_MISDIRECTED
        moved = MOVED_ALL if source.is_complete() else MOVED_NONSENSE if source.is_malformed() else MOVED_SOME
        if tap is not None:
            if tap.found:
                # traffic first, then the handler
                sink.flush()
                self.push_frames(tap)
            if self.has_ended or self.is_over():
                return MOVED_SOME
            if moved != MOVED_NONSENSE and tap.decoded is not None:
                return MOVED_MORE
        if is_full and moved == MOVED_SOME:
            return MOVED_MORE
        if moved == MOVED_SOME and (copy is not None or tap is not None):
            self.reserve(False)
        return moved

    cdef int on_content(self, Stream stream) except -1:
        return 0 if self.is_over() else self.advance()

    # ---- deadlines

    cdef bint owes_continue(self) noexcept:
        # the client waits for the upstream's 100 and has heard nothing
        return (self.request.expect_continue and not self.sent_continue and self.client.content_total() == 0
                and self.upstream is not None and self.upstream.is_silent())

    cdef int on_deadline(self, int stage) except -1:
        if self.is_over():
            return 0
        if stage == STAGE_COLLECT:
            self.decide()
        elif stage == STAGE_HOLD:
            self.ask_about_body()
        elif stage == STAGE_ACQUIRE:
            self.pool.cancel(self)
            self.expire(EXPIRY_HTTP2_NO_STREAMS if self.pool.allows_none() else EXPIRY_ACQUIRE)
        elif stage == STAGE_RESPONSE:
            self.expire(EXPIRY_HTTP2_RESPONSE if self.upstream.is_multiplexed() else EXPIRY_RESPONSE)
        elif stage == STAGE_DOWNLOAD:
            if self.upstream is not None and self.upstream.paused():
                # what holds it back, a client that does not read or a handler that is behind, has a deadline of its own
                return 0
            self.expire(EXPIRY_HTTP2_DOWNLOAD if self.upstream is not None and self.upstream.is_multiplexed() else EXPIRY_DOWNLOAD)
        elif self.response_state == RESPONSE_DONE and self.client.is_complete():
            # the upstream has answered, and takes no more of what was collected
            self.stop_upload()
        elif self.upstream is not None and self.upstream.is_write_paused():
            self.expire(EXPIRY_UPLOAD_NOT_TAKEN)
        elif self.has_enough() or self.own_request is not None:
            # the client waits for us, and for the handler
            return self.await_upload()
        else:
            self.expire(EXPIRY_NO_CONTINUE if self.owes_continue() else EXPIRY_UPLOAD)
        return self.advance()

    cdef int expire(self, int expiry) except -1:
        cdef int action, status, counter
        action, status, counter, text = expiry_rule(expiry)
        if counter == COUNT_UPSTREAM_TIMEOUT:
            self.settings.counters.upstream_timeouts += 1
            self.note_fault(END_UPSTREAM_TIMEOUT)
        elif counter == COUNT_REFUSED:
            self.settings.counters.requests_refused += 1
            self.note_fault(END_REFUSED)
        else:
            self.note_fault(END_CUT_BY_CLIENT)
        if action == EXPIRE_ANSWER:
            return self.explain(status, text.replace("{origin}", "" if self.pool is None else str(self.pool.origin)).encode())
        return self.truncate(TimeoutError(text))

    cdef int on_half_closed(self) except -1:
        if self.is_over():
            return 0
        self.is_last = True
        if self.request_state == REQUEST_ACQUIRE:
            self.pool.cancel(self)
        self.expire(EXPIRY_HALF_CLOSED)
        return self.advance()

    # ---- an upstream's stream that ends: again, or not

    cdef int on_reset(self, Stream stream, object error) except -1:
        if self.is_over():
            return 0
        if stream is self.client:
            return self.lose_client(error)
        if stream is not self.upstream:
            return 0
        if self.response_state == RESPONSE_HEAD:
            return self.on_no_response(error)
        if self.is_held:
            if not stream.is_complete():
                self.on_response_lost(error)
            return self.advance()
        if self.response_state == RESPONSE_RELAY:
            if stream.is_complete():
                # only in another turn of the loop is all of it relayed
                return 0
            if self.down_stages is not None and self.down_stages.is_waiting():
                # what the handler is deciding on came before
                self.down_stages.lost = error
                return 0
            self.settings.counters.upstream_errors += 1
            self.note_fault(END_CUT_BY_UPSTREAM)
            return self.truncate(error)
        if self.request_state == REQUEST_RELAY:
            if self.client.is_complete():
                self.stop_upload()
                return self.advance()
            # what is left of the request has nowhere to go
            return self.refuse_rest()
        return self.drop_upstream()

    cdef int on_no_response(self, object error) except -1:
        cdef int how = self.upstream.unprocessed()
        if isinstance(error, WireError):
            self.fail_upstream(error.status, str(error).encode())
            return self.advance()
        if how == PROCESSED_HTTP1_ONLY:
            self.pool.require_http1()
        if self.may_retry():
            return self.retry()
        if (how == PROCESSED_NOT or how == PROCESSED_HTTP1_ONLY) and self.client.is_multiplexed():
            # the client may know how to go on: it has the request, and we have not
            self.settings.counters.upstream_errors += 1
            self.note_fault(END_UPSTREAM_ERROR)
            return self.abort(error)
        if isinstance(error, Http2StreamReset):
            how_it_ended = f"reset the stream with error code {error.code} of HTTP/2"
        else:
            how_it_ended = "closed the connection"
        self.fail_upstream(502, f"{self.pool.origin} {how_it_ended} before it answered".encode())
        return self.advance()

    cdef bint may_retry(self) except -1:
        # RFC 9112 section 9.3.1: only what can be sent again whole, does no harm twice, and met a connection that was closing anyway
        cdef int how = self.upstream.unprocessed()
        if self.retried or not self.settings.retry:
            return False
        if how == PROCESSED_HTTP1_ONLY and (self.pool.fallback is None or (
                self.client.is_multiplexed() and self.upstream.authenticates(self.sent, None))):
            # a client that authenticates by its connection has to make one of its own
            return False
        if how == PROCESSED_NOT or how == PROCESSED_HTTP1_ONLY:
            return self.is_here_whole()
        return how == PROCESSED_UNLIKELY and self.can_repeat()

    cdef bint can_repeat(self) noexcept:
        cdef Head sent = self.sent
        if not self.settings.retry:
            return False
        return self.is_here_whole() and is_idempotent(sent.method, sent.base(), sent.method_len)

    cdef bint is_here_whole(self) noexcept:
        if self.own_request is not None:
            return self.own_request.can_repeat()
        if self.filters_request:
            # the handler would be asked about its messages again
            return False
        return self.client.is_complete() and (not self.has_body or self.buffered is not None)

    cdef int retry(self) except -1:
        cdef int how = self.upstream.unprocessed()
        self.settings.counters.retries += 1
        self.settings.counters.http2_retries += how == PROCESSED_NOT or how == PROCESSED_HTTP1_ONLY
        self.retried = True
        self.drop_upstream()
        self.move_response(INPUT_AGAIN)
        self.move_request(INPUT_RETRY)
        self.set_upstream_deadline(self.settings.claim, STAGE_ACQUIRE)
        if how == PROCESSED_HTTP1_ONLY:
            self.pool = self.pool.pool_for(True)
            return self.pool.acquire(self)
        return self.pool.acquire_new(self)


cdef Exchange new_exchange(Settings settings, HttpConnection connection, Stream client, Route route, Head request):
    cdef Exchange exchange = Exchange.__new__(Exchange)
    exchange.settings = settings
    exchange.connection = connection
    exchange.client = client
    exchange.route = route
    exchange.request = request
    exchange.sent = request
    if route.observed:
        exchange.hooks = settings.hooks
    exchange.has_body = not client.is_complete()
    settings.counters.last_flow_id += 1
    exchange.id = settings.counters.last_flow_id
    settings.counters.flows += 1
    settings.counters.active_flows += 1
    exchange.began = monotonic()
    exchange.charge_head(request)
    if settings.recorder is not None:
        exchange.begin_recording()
    note(LEDGER_FLOW, 1)
    return exchange


cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        void* tp_dealloc

# Its parts keep nothing of their own (ExchangeState has it all), so what frees an ExchangeState frees an Exchange. As generated, each
# of the ten would take it out of the collector's lists and put it back for the next one.
if Exchange.__basicsize__ != ExchangeState.__basicsize__:
    raise AssertionError("a part of Exchange has attributes of its own: they belong into ExchangeState")
(<PyTypeObject*>Exchange).tp_dealloc = (<PyTypeObject*>ExchangeState).tp_dealloc
