"""Responses of ours: refusals and failures, and those of the handler, as bytes or from an iterable, sent as it comes."""

from soth_mitm._dataplane.exchange.exchange_pressure cimport ExchangePressure
from soth_mitm._dataplane.exchange.exchange_state cimport (
    EXCHANGE_DECIDED, MOST_PIECES, RESPONSE_BLOCKED, VERDICT_ANSWERED, VERDICT_BLOCKED, VERDICT_FAILED,
)
from soth_mitm._dataplane.exchange.own_body cimport OwnBody, new_own_stream
from soth_mitm._dataplane.exchange.states cimport (
    INPUT_ANSWER, INPUT_ANSWERED, INPUT_BEGIN, INPUT_COMPLETE, REQUEST_RELAY, RESPONSE_DONE, RESPONSE_RELAY,
)
from soth_mitm._dataplane.exchange.taps cimport FRAMED_AT_ONCE
from soth_mitm._dataplane.http.counters cimport END_BLOCKED, END_CUT_BY_PROXY, END_REFUSED, END_UPSTREAM_ERROR, END_UPSTREAM_TIMEOUT
from soth_mitm._dataplane.http.hooks cimport Hooks
from soth_mitm._dataplane.http.stream cimport NO_ROOM_LIMIT, Piece
from soth_mitm._dataplane.memory.buffer cimport BLOCK_SIZE
from soth_mitm._dataplane.memory.view cimport View
from soth_mitm._dataplane.wire.head cimport METHOD_HEAD


# not final: the next part derives from it
cdef class ExchangeAnswers(ExchangePressure):
    """Responses that no upstream gave."""

    cdef int answer(self, int status, bytes text, object headers) except -1:
        if self.response_state == RESPONSE_DONE:
            # a client that has said everything may go on
            return self.stop_upload() if self.client.is_complete() and self.request_state == REQUEST_RELAY else self.refuse_rest()
        if self.has_response():
            return self.truncate(self.cause or ConnectionAbortedError("failed after the response had begun"))
        if self.begins_upgrade(status):
            text = b"the answer to the request for a WebSocket was %d, with which a WebSocket over HTTP/2 begins" % status
            status, headers = 502, None
        self.status = status
        self.count_first_byte()
        self.leave_decision()
        self.drop_held()
        self.relayed = None
        if self.cause is None and self.response_verdict != RESPONSE_BLOCKED and (
                self.verdict not in (VERDICT_BLOCKED, VERDICT_ANSWERED) or self.own_answer is not None):
            # it is not what the handler gave
            self.cause = text
        if self.recording is not None:
            self.record_answer(status, text, headers)
        if self.upstream is not None and self.connection.has_reserved(self.upstream.connection()):
            self.is_last = True
        if self.client.answer(status, text, headers, self.request.method == METHOD_HEAD, self.is_last):
            return self.terminate()
        self.drop_upstream()
        self.move_request(INPUT_ANSWER)
        self.move_response(INPUT_ANSWERED)
        return 0

    cdef bint begins_upgrade(self, int status) noexcept:
        return self.keep_upgrade and self.client.takes_for_upgrade(status)

    cdef int explain(self, int status, bytes text) except -1:
        return self.answer(status, text, None)

    cdef int refuse(self, int status, bytes text) except -1:
        self.settings.counters.requests_refused += 1
        self.note_fault(END_REFUSED)
        return self.explain(status, text)

    cdef int reject(self) except -1:
        return self.refuse(413, b"the request body is longer than %d bytes (body.max_size_bytes)" % self.settings.body_limit)

    cdef int fail_upstream(self, int status, bytes text) except -1:
        self.settings.counters.upstream_errors += 1
        # 403: an address that may not be connected to, or a redirect of the handler that the policy refuses
        self.note_fault(END_BLOCKED if status == 403 else END_UPSTREAM_TIMEOUT if status == 504 else END_UPSTREAM_ERROR)
        return self.explain(status, text)

    cdef int fail_closed(self, object error, int status, bytes text) except -1:
        self.verdict = VERDICT_FAILED
        self.cause = error
        self.tell_observer(EXCHANGE_DECIDED)
        if self.settings.hooks.cuts(error):
            return self.abort(error)
        self.settings.counters.requests_blocked += 1
        return self.explain(status, text)

    # ---- of the handler, with a body that is sent as it comes

    cdef int answer_from(self, object decision) except -1:
        cdef Hooks hooks = self.settings.hooks
        cdef OwnBody own
        try:
            own = new_own_stream(self.settings, self, decision._take_body())
        except ValueError as error:
            hooks.failed(hooks.on_request, error)
            return self.fail_closed(error, 502, b"the decision of the policy handler was used before")
        # or the iterable would stay until the next hook returns
        hooks.result = None
        self.pending_calls += 1
        self.settings.counters.requests_answered += 1
        self.verdict = VERDICT_ANSWERED
        self.status = decision.status
        self.tell_observer(EXCHANGE_DECIDED)
        self.move_request(INPUT_ANSWER)
        if self.request.method == METHOD_HEAD:
            # never begun
            own.close()
            if self.recording is not None:
                self.record_answer(decision.status, None, decision.headers)
            self.client.begin_answer(decision.status, decision.headers, True, self.is_last)
            self.move_response(INPUT_ANSWERED)
            self.runs_again = True
            return 0 if self.client.is_complete() else self.refuse_rest()
        self.own_answer = own
        self.answer_headers = decision.headers
        return own.want()

    cdef int relay_answer(self) except -1:
        cdef OwnBody own = self.own_answer
        cdef View piece
        if self.response_state == RESPONSE_DONE or self.is_over():
            return 0
        if not self.client.is_complete():
            self.discard_rest()
            if self.is_over():
                return 0
        if self.response_state != RESPONSE_RELAY:
            if not own.has_more() and not own.has_ended:
                return 0
            self.begin_own_answer()
            if self.is_over():
                return 0
        while own.has_more():
            if self.client.room() <= 0:
                return self.client.await_room()
            if self.client.is_write_paused():
                return 0
            if self.down is not None and self.down.has_enough():
                return self.take_later()
            own.next_piece(min(self.client.room(), <Py_ssize_t>(BLOCK_SIZE if self.down is None else FRAMED_AT_ONCE)), &piece)
            self.client.send_content(piece.ptr, piece.len)
            self.response_total += piece.len
            if self.recording is not None:
                self.record_body(piece)
            self.show_own_answer(piece)
            if self.has_ended or self.is_over():
                return 0
        own.forget_sent()
        if not own.has_ended:
            self.client.flush()
            if self.is_over() or self.client.is_write_paused() or self.pressure:
                return 0
            return own.want()
        self.client.send_end(None)
        self.move_response(INPUT_COMPLETE)
        self.runs_again = True
        self.client.flush()
        if self.is_over():
            return 0
        self.end_response(True)
        return 0 if self.is_over() or self.client.is_complete() else self.refuse_rest()

    cdef int begin_own_answer(self) except -1:
        if self.recording is not None:
            self.record_answer(self.status, None, self.answer_headers)
        self.client.begin_answer(self.status, self.answer_headers, False, self.is_last)
        return self.move_response(INPUT_BEGIN)

    cdef int show_own_answer(self, View piece) except -1:
        """Show what was sent in place of an upstream's body."""
        if self.response_copy is not None:
            self.charge(self.response_copy.add(piece.ptr, piece.len))
        if self.down is not None:
            self.down.observe(piece)
            if self.down.found:
                # traffic first, then the handler
                self.client.flush()
                self.push_frames(self.down)
        return 0

    cdef int discard_rest(self) except -1:
        # a client that says everything before it reads would wait for us, and we for it
        cdef Piece piece
        cdef int pieces = 0
        while pieces < MOST_PIECES and self.client.next_piece(&piece, NO_ROOM_LIMIT) > 0:
            pieces += 1
        self.client.take_content()
        if pieces == MOST_PIECES:
            return self.take_later()
        return 0 if self.client.is_complete() or self.client.has_content() else self.abort_if_cut()

    # ---- a body that the handler gave, of the response or of the request

    cdef int on_own_body(self, object body) except -1:
        cdef OwnBody own = <OwnBody>body
        if self.is_over():
            return 0
        if own.error is not None:
            self.cause = own.error
            self.note_fault(END_CUT_BY_PROXY)
            if self.settings.hooks.cuts(own.error) and not isinstance(own.error, TimeoutError):
                return self.truncate(own.error) if self.has_response() else self.abort(own.error)
            self.explain(502, b"the body that the policy handler gave failed before its end")
        return self.advance()

    cdef int on_own_body_closed(self, object body) except -1:
        self.pending_calls -= 1
        return self.settle()
