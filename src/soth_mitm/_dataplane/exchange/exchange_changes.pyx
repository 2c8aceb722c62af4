"""A request that the handler changes: its head, the way that it takes, and the body that it is sent with instead of its own."""

from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.exchange_answers cimport ExchangeAnswers
from soth_mitm._dataplane.exchange.exchange_state cimport (
    EXCHANGE_DECIDED, MOVED_ALL, MOVED_MISDIRECTED, MOVED_MORE, MOVED_SOME, VERDICT_CHANGED,
)
from soth_mitm._dataplane.exchange.own_body cimport OwnBody, new_own_bytes, new_own_stream
from soth_mitm._dataplane.exchange.route cimport Route
from soth_mitm._dataplane.exchange.taps cimport FRAMED_AT_ONCE, new_frame_tap
from soth_mitm._dataplane.http.changes cimport changed_head, is_signed, names_decided, trailers_without
from soth_mitm._dataplane.http.hooks cimport Hooks
from soth_mitm._dataplane.http.stream cimport Stream
from soth_mitm._dataplane.memory.view cimport View, view_of
from soth_mitm._dataplane.wire.streams cimport stream_of


# not final: the next part derives from it
cdef class ExchangeChanges(ExchangeAnswers):
    """Changes of the request."""

    cdef bint change(self, object decision) except -1:
        cdef Hooks hooks = self.settings.hooks
        cdef bytes authority = None
        if decision._where is not None:
            if not self.redirect(decision._where):
                self.close_ignored(decision)
                return False
            if decision._where.authority is not None:
                authority = self.way.authority.encode()
        try:
            self.request_view.check_change(decision)
            self.sent = changed_head(self.request, decision, authority, self.settings.head_limit, self.settings.most_fields)
            if self.sent is not self.request:
                self.charge_head(self.sent)
            if decision.body is not None:
                self.replace_content(decision)
            elif self.has_body:
                self.decided_names = names_decided(decision)
        except ValueError as error:
            hooks.failed(hooks.on_request, error)
            self.close_ignored(decision)
            self.fail_closed(error, 502, b"the decision of the policy handler cannot be applied to this request")
            return False
        self.settings.counters.requests_allowed += 1
        if self.sent is not self.request or self.own_request is not None:
            self.settings.counters.requests_changed += 1
            self.settings.counters.changed_signed_messages += is_signed(self.request, names_decided(decision))
        self.settings.counters.requests_redirected += self.way is not None
        self.verdict = VERDICT_CHANGED
        self.tell_observer(EXCHANGE_DECIDED)
        return True

    cdef bint redirect(self, object where) except -1:
        cdef Hooks hooks = self.settings.hooks
        cdef Route way = self.settings.on_redirect(self.route, where, self.client.is_multiplexed())
        if way.pool is None:
            error = PermissionError(way.reason.decode())
            hooks.failed(hooks.on_request, error)
            self.fail_closed(error, way.status, way.reason)
            return False
        self.way = way
        return True

    cdef int replace_content(self, object decision) except -1:
        taken = decision._take_body()
        if type(taken) is bytes:
            self.own_request = new_own_bytes(self.settings, taken)
        else:
            self.own_request = new_own_stream(self.settings, self, taken)
            self.pending_calls += 1
            # or the iterable would stay until the next hook returns
            self.settings.hooks.result = None
        self.has_body = True
        self.request_trailers = None
        self.drop_buffered()
        if self.up is not None or (self.filters_request and self.hooks.on_stream_chunk is not None):
            # which was told of another coding
            self.up = new_frame_tap(
                self.settings, self.own_share(), stream_of(self.sent, self.settings.stream_types), self.sent, "to_upstream")
        # the handler has decided on it
        self.filters_request = False
        return 0

    cdef bint may_drop_trailers(self) except -1:
        # with a length there are none in HTTP/1, and HTTP/2 is never forwarded as it came
        if self.decided_names is None:
            return False
        if self.client.is_complete():
            return self.trailers_to_send() != self.request_trailers
        return self.request.content_length < 0

    cdef bytes trailers_to_send(self):
        return trailers_without(self.request_trailers, self.decided_names)

    # ---- the handler's body, to the upstream

    cdef int send_own(self) except -1:
        cdef OwnBody own = self.own_request
        cdef Stream sink = self.upstream
        cdef View piece
        if self.up is not None:
            self.up.frame_decoded()
            self.show_own()
        while own.has_more() and not self.is_behind_own():
            if self.up is not None and self.up.has_enough():
                return MOVED_MORE
            if sink.room() <= 0:
                sink.await_room()
                return MOVED_SOME
            if sink.is_write_paused():
                return MOVED_SOME
            own.next_piece(min(sink.room(), <Py_ssize_t>FRAMED_AT_ONCE), &piece)
            if self.upload_search is None:
                sink.send_content(piece.ptr, piece.len)
            else:
                self.upload_search.send(sink, piece.ptr, piece.len)
                if self.upload_search.has_found():
                    return MOVED_MISDIRECTED
            if self.up is not None:
                self.observe_own(piece)
                self.show_own()
        own.forget_sent()
        if self.has_ended or self.is_over():
            return MOVED_SOME
        if own.has_ended and not own.has_more() and (self.up is None or self.up.decoded is None):
            self.end_upload()
            return MOVED_ALL
        sink.flush()
        if self.is_behind_own():
            # a handler that is behind is waited for
            return MOVED_SOME
        if self.up is not None:
            if self.up.decoded is not None:
                return MOVED_MORE
            self.reserve(False)
        if not self.is_behind_own() and not sink.is_write_paused():
            own.want()
        return MOVED_SOME

    cdef bint is_behind_own(self) noexcept:
        return self.up is not None and (self.pressure != 0 or self.has_ended or self.is_over())

    cdef int observe_own(self, View piece) except -1:
        # what is sent once more was shown before
        cdef Py_ssize_t fresh = <Py_ssize_t>min(<int64_t>piece.len, self.own_request.total - self.up_at)
        if fresh > 0:
            self.up_at += fresh
            self.up.observe(view_of(piece.ptr + piece.len - fresh, fresh))
        return 0

    cdef int show_own(self) except -1:
        if self.up.found:
            # traffic first, then the handler
            self.upstream.flush()
            self.push_frames(self.up)
        return 0
