"""What the handler decides about the upstream's response before any of it goes to the client.

`on_response_head` is asked at the final head. What it wants to see whole is collected, and `on_response_body` is asked. Meanwhile the
upload goes on, and the upstream is read no further than the decision needs. Whatever ends the exchange ends the wait.
"""

from soth_mitm._dataplane.exchange.decision cimport (
    JUDGED_UNDECIDED, RESPONSE_JUDGED_BLOCK, RESPONSE_JUDGED_CHANGE, RESPONSE_JUDGED_FAILED, RESPONSE_JUDGED_HOLD,
    RESPONSE_JUDGED_NO_DECISION, RESPONSE_JUDGED_REPLACE, RESPONSE_JUDGED_UNDECIDED, RESPONSE_JUDGED_UNFILTERED, judge_failure,
    judge_response, judgement_text,
)
from soth_mitm._dataplane.exchange.exchange_state cimport (
    EXCHANGE_ANSWERED, RESPONSE_BLOCKED, RESPONSE_CHANGED, RESPONSE_FAILED, RESPONSE_PASSED, RESPONSE_REPLACED, RESPONSE_UNDECIDED,
)
from soth_mitm._dataplane.exchange.exchange_credentials cimport ExchangeCredentials
from soth_mitm._dataplane.exchange.own_body cimport OwnBody, new_own_bytes, new_own_stream
from soth_mitm._dataplane.exchange.response_drain cimport drain_response
from soth_mitm._dataplane.exchange.states cimport (
    INPUT_ANSWER, INPUT_DECIDE_BODY, INPUT_DECIDE_HEAD, INPUT_HOLD, INPUT_OWN, REQUEST_RELAY, REQUEST_SENT, RESPONSE_COLLECT,
    RESPONSE_DECIDE_BODY, STAGE_HOLD,
)
from soth_mitm._dataplane.http.changes cimport changed_response_head, names_decided
from soth_mitm._dataplane.http.counters cimport END_CUT_BY_UPSTREAM
from soth_mitm._dataplane.http.hooks cimport HOOK_FAILED, HOOK_PENDING, Hook, Hooks
from soth_mitm._dataplane.http.messages cimport RawResponse
from soth_mitm._dataplane.http.stream cimport ANY_LENGTH, Stream
from soth_mitm._dataplane.memory.view cimport View, view_bytes, view_of
from soth_mitm._dataplane.transport.callbacks cimport PAUSE_DECISION, PAUSE_PEER_SLOW
from soth_mitm._dataplane.wire.head cimport METHOD_HEAD, Head
from soth_mitm._dataplane.wire.streams cimport STREAM_NONE, stream_of


# not final: the next part derives from it
cdef class ExchangeResponses(ExchangeCredentials):
    """Decisions about the response."""

    cdef bint decides_response(self) noexcept:
        return self.hooks is not None and self.hooks.on_response_head is not None

    # ---- up to the decision

    cdef int ask_about_head(self, Head head) except -1:
        self.response = head
        self.is_streaming = head.status == 101 or stream_of(head, self.settings.stream_types) != STREAM_NONE
        self.move_response(INPUT_DECIDE_HEAD)
        self.is_held = True
        self.settings.counters.held_responses += 1
        # the hook has its own
        self.clear_upstream_deadline()
        return self.call(self.hooks.on_response_head, self.show_response(b""))

    cdef int call(self, Hook hook, RawResponse view) except -1:
        cdef Hooks hooks = self.settings.hooks
        cdef int outcome
        self.response_view = view
        view._note = self.response_note
        outcome = hooks.run(hook, view, None, self)
        if outcome == HOOK_PENDING:
            self.pending_calls += 1
            self.asking = hooks.pending
            if not self.upstream.is_complete():
                self.upstream.pause(PAUSE_DECISION)
            return 0
        if self.is_over() or not self.is_held:
            return 0
        if outcome == HOOK_FAILED:
            return self.response_decided(RESPONSE_JUDGED_FAILED, None, hooks.error)
        return self.response_decided(judge_response(self.settings, hooks.result), hooks.result, None)

    cdef Hook response_hook(self):
        return self.hooks.on_response_body if self.response_state == RESPONSE_DECIDE_BODY else self.hooks.on_response_head

    cdef int on_response_judged(self, object result, object error) except -1:
        if error is not None:
            return self.response_decided(RESPONSE_JUDGED_FAILED, None, error)
        return self.response_decided(judge_response(self.settings, result), result, None)

    cdef int response_decided(self, int judgement, object decision, object error) except -1:
        cdef Hooks hooks = self.settings.hooks
        cdef int failure
        if error is None and judgement != RESPONSE_JUDGED_NO_DECISION:
            self.response_note = decision._note
        if judgement == RESPONSE_JUDGED_HOLD:
            return self.hold()
        if judgement == RESPONSE_JUDGED_CHANGE:
            return self.change_response(decision)
        if judgement == RESPONSE_JUDGED_REPLACE:
            return self.replace_response(decision)
        if judgement == RESPONSE_JUDGED_BLOCK:
            return self.block_response(decision)
        if judgement == RESPONSE_JUDGED_NO_DECISION:
            hooks.mistaken(self.response_hook(), "a ResponseDecision (ResponseDecision.PASS, .HOLD, .change(...), ...)", decision)
            return self.fail_response(hooks.error, 502, b"the policy handler returned no decision about the response")
        if judgement == RESPONSE_JUDGED_FAILED:
            failure = judge_failure(self.settings, error)
            if failure != JUDGED_UNDECIDED:
                return self.fail_response(error, 502, judgement_text(failure))
            judgement = RESPONSE_JUDGED_UNDECIDED
        self.is_unfiltered = judgement == RESPONSE_JUDGED_UNFILTERED
        self.response_verdict = RESPONSE_UNDECIDED if judgement == RESPONSE_JUDGED_UNDECIDED else RESPONSE_PASSED
        self.relayed = self.response
        return self.pass_response()

    # ---- HOLD

    cdef int hold(self) except -1:
        cdef Hooks hooks = self.settings.hooks
        if self.response_state == RESPONSE_DECIDE_BODY:
            return self.refuse_decision(ValueError("HOLD: the body is here, and no more of it will come"))
        if self.is_streaming:
            what = "a 101 has no body" if self.response.status == 101 else "a stream is decided on at its head"
            return self.refuse_decision(ValueError(f"HOLD: {what}"))
        if hooks.on_response_body is None:
            return self.refuse_decision(ValueError("HOLD: the handler has no on_response_body"))
        if self.lost is not None:
            return self.on_response_lost(self.lost)
        if self.upstream.is_complete():
            return self.ask_about_body()
        if self.is_hold_bounded() and self.response.content_length > self.settings.body_limit:
            return self.explain_too_long()
        self.held_body = self.upstream.new_buffer(self.settings.body_limit)
        self.move_response(INPUT_HOLD)
        self.set_upstream_deadline(self.settings.body_buffer, STAGE_HOLD)
        self.runs_again = True
        return 0

    cdef bint is_hold_bounded(self) noexcept:
        return self.settings.reject_overflow or self.settings.refuse_incomplete or (
            self.settings.http2_strict_overflow and self.upstream.is_multiplexed())

    cdef int explain_too_long(self) except -1:
        return self.fail_upstream(502, b"the response body is longer than %d bytes (body.max_size_bytes)" % self.settings.body_limit)

    cdef int collect_response(self) except -1:
        cdef Py_ssize_t limit = self.settings.body_limit, kept
        cdef View trailers = view_of(NULL, 0)
        kept = self.upstream.collect_into(self.held_body, &trailers)
        self.charge(kept)
        self.settings.counters.held_bytes += kept
        if trailers.len:
            self.response_trailers = view_bytes(trailers)
        self.upstream.take_content()
        if self.is_over() or self.response_state != RESPONSE_COLLECT:
            return 0
        if self.upstream.is_malformed():
            return self.fail_upstream(502, b"the upstream's response body is malformed: " + self.upstream.error_text().encode())
        if self.is_hold_bounded() and self.upstream.content_total() > limit:
            return self.explain_too_long()
        if not self.upstream.is_complete():
            self.reserve(True)
            # a body of unknown length that has just reached the limit may be complete: its end tells
            if self.upstream.content_total() <= limit - (self.response.content_length > limit):
                # behind all that lies here: its end may be next
                return self.resume_upstream(PAUSE_DECISION)
        return self.ask_about_body()

    cdef int ask_about_body(self) except -1:
        cdef bytes body = b"" if self.held_body is None else self.held_body.content.whole()
        cdef bint is_whole = self.upstream.is_complete()
        cdef RawResponse view
        self.move_response(INPUT_DECIDE_BODY)
        self.clear_upstream_deadline()
        if self.pressure:
            # it is decided on as it is
            if self.share is not None:
                self.share.stop_waiting()
            self.pressure = 0
            if not is_whole:
                self.upstream.pause(PAUSE_DECISION)
            self.set_pauses()
            if self.is_over():
                return 0
        view = self.show_response(body)
        view.was_held = True
        view.body_truncated = len(body) < self.upstream.content_total() or (not is_whole and len(body) == self.settings.body_limit)
        view.body_complete = is_whole and not view.body_truncated
        if self.settings.refuse_incomplete:
            if not view.body_complete:
                return self.fail_upstream(502, b"the response body was not complete in time (body.incomplete, body.buffer_timeout_ms)")
            if view.decode_error is not None:
                return self.fail_upstream(
                    502, b"the response body cannot be decoded (body.incomplete): " + view.decode_error.encode())
        return self.call(self.hooks.on_response_body, view)

    # ---- what is decided

    cdef int pass_response(self) except -1:
        self.response_view = None
        self.leave_decision()
        self.status = self.relayed.status
        if self.response.status == 101:
            if self.lost is not None:
                return self.fail_upstream(502, b"the upstream was lost before its 101 was decided on")
            return self.switch_protocols(self.response)
        self.begin_response()
        if self.is_over():
            return 0
        if self.lost is not None:
            self.settings.counters.upstream_errors += 1
            self.note_fault(END_CUT_BY_UPSTREAM)
            return self.truncate(self.lost)
        return 0

    cdef int change_response(self, object decision) except -1:
        try:
            self.response_view.check_change(decision)
            self.relayed = changed_response_head(
                self.response, decision, ANY_LENGTH, self.settings.head_limit, self.settings.most_fields)
        except ValueError as error:
            return self.refuse_decision(error)
        self.response_names = names_decided(decision)
        self.is_unfiltered = decision._is_unfiltered
        self.settings.counters.responses_changed += self.relayed is not self.response
        self.response_verdict = RESPONSE_CHANGED
        return self.pass_response()

    cdef int replace_response(self, object decision) except -1:
        cdef RawResponse view = self.response_view
        cdef Head head
        cdef OwnBody own
        cdef bint is_head_only = self.request.method == METHOD_HEAD
        try:
            view.check_change(decision)
            self.own_length = view.length_of(decision)
            head = changed_response_head(
                self.response, decision, self.own_length, self.settings.head_limit, self.settings.most_fields)
            taken = decision._take_body()
        except ValueError as error:
            self.close_ignored(decision)
            return self.refuse_decision(error)
        if type(taken) is bytes:
            own = new_own_bytes(self.settings, b"" if is_head_only else taken)
        else:
            own = new_own_stream(self.settings, self, taken)
            self.pending_calls += 1
            # or the iterable would stay until the next hook returns
            self.settings.hooks.result = None
        if self.begins_upgrade(head.status):
            own.close()
            return self.refuse_decision(ValueError(
                f"status: a WebSocket over HTTP/2 begins with a {head.status}, and this response is none"))
        if is_head_only:
            # never begun
            own.close()
            own = new_own_bytes(self.settings, b"")
            self.own_length = 0
        self.response_view = None
        self.leave_decision()
        self.settings.counters.responses_replaced += 1
        self.response_verdict = RESPONSE_REPLACED
        self.relayed = head
        self.status = head.status
        self.response_trailers = None
        if self.request_state == REQUEST_RELAY and self.own_request is not None:
            self.own_request.close()
        if self.client_deadline is not None:
            self.client_deadline.clear()
        self.part_with_upstream()
        self.drop_held()
        if self.is_over():
            return 0
        self.move_request(INPUT_ANSWER)
        self.move_response(INPUT_OWN)
        self.own_answer = own
        self.runs_again = True
        # an upstream that was slow held it back; the rest of the request is discarded
        self.client.resume(PAUSE_PEER_SLOW)
        return 0 if self.is_over() else own.want()

    cdef int block_response(self, object decision) except -1:
        self.settings.counters.responses_blocked += 1
        self.response_verdict = RESPONSE_BLOCKED
        self.response_view = None
        self.status = decision.status
        self.tell_observer(EXCHANGE_ANSWERED)
        self.part_with_upstream()
        return 0 if self.is_over() else self.answer(decision.status, decision.body, decision.headers)

    cdef int refuse_decision(self, object error) except -1:
        self.settings.hooks.failed(self.response_hook(), error)
        return self.fail_response(error, 502, b"the decision of the policy handler cannot be applied to this response")

    cdef int fail_response(self, object error, int status, bytes text) except -1:
        self.response_view = None
        self.response_verdict = RESPONSE_FAILED
        self.cause = error
        self.status = status
        self.tell_observer(EXCHANGE_ANSWERED)
        if self.settings.hooks.cuts(error):
            return self.abort(error)
        self.settings.counters.responses_blocked += 1
        return self.explain(status, text)

    # ---- the upstream's stream

    cdef int part_with_upstream(self) except -1:
        cdef Stream upstream = self.upstream
        if upstream is None:
            return 0
        if self.request_state != REQUEST_SENT or self.lost is not None or not self.response.keeps_alive() or (
                self.response.status == 101):
            self.is_last = self.is_last or self.connection.has_reserved(upstream.connection())
            return self.drop_upstream()
        self.upstream = None
        if upstream.is_complete():
            return upstream.release(self.sent, self.response, self.connection)
        if upstream.is_multiplexed() or self.redacts() or upstream.authenticates(self.sent, self.response) or (
                self.connection.has_reserved(upstream.connection())):
            self.is_last = self.is_last or self.connection.has_reserved(upstream.connection())
            return upstream.reset(None)
        return drain_response(self.settings, upstream, self.sent, self.response)

    cdef int on_response_lost(self, object error) except -1:
        if self.response_state != RESPONSE_COLLECT and self.lost is None:
            # what is decided may not need it
            self.lost = error
            return 0
        return self.fail_upstream(
            502, f"{self.pool.origin} ended before its response was whole, which the policy handler waits for".encode())

    cdef bint may_drop_trailers_of_response(self) noexcept:
        # with a length there are none in HTTP/1, and HTTP/2 is never forwarded as it came
        if self.response_names is None or self.upstream.ends_by_close():
            return False
        return self.response_trailers is not None if self.upstream.is_complete() else self.response.content_length < 0

    cdef int begin_response(self) except -1:
        raise NotImplementedError
