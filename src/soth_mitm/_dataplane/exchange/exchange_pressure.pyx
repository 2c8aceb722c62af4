"""Back-pressure: when an exchange reads less from one side, because of the other side, the handler or the budget of bytes."""

from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.exchange_ends cimport ExchangeEnds
from soth_mitm._dataplane.exchange.states cimport REQUEST_COLLECT, REQUEST_RELAY, REQUEST_SENT, RESPONSE_HEAD, RESPONSE_RELAY, STAGE_UPLOAD
from soth_mitm._dataplane.http.stream cimport Stream
from soth_mitm._dataplane.transport.callbacks cimport PAUSE_BUDGET, PAUSE_HANDLER, PAUSE_PEER_SLOW


# not final: the next part derives from it
cdef class ExchangePressure(ExchangeEnds):
    """What pauses and resumes reading."""

    cdef int on_stream_writable(self, Stream stream, bint now) except -1:
        if self.is_over():
            return 0
        if stream is self.client:
            if self.own_answer is not None:
                return self.advance() if now else 0
            if self.upstream is None:
                return 0
            if now:
                if self.response_state == RESPONSE_RELAY and (not self.response_is_wire or self.held_body is not None):
                    # what lies here goes first, and the upstream's end behind it
                    self.advance()
                    if self.is_over() or self.upstream is None:
                        return 0
                    if self.client.room() <= 0:
                        # once more, before more is read
                        return self.client.await_room()
                return self.resume_upstream(PAUSE_PEER_SLOW)
            return 0 if self.reads_ahead() else self.upstream.pause(PAUSE_PEER_SLOW)
        if stream is not self.upstream:
            return 0
        if self.request_state == REQUEST_RELAY:
            if not now:
                return self.client.pause(PAUSE_PEER_SLOW)
            self.await_upload()
            if self.buffered is not None or not self.request_is_wire:
                # what was collected, or is the handler's, goes first
                self.advance()
            if self.is_over() or self.request_state != REQUEST_RELAY:
                return 0
            if stream.is_write_paused():
                return stream.await_room()
            self.client.resume(PAUSE_PEER_SLOW)
        elif self.request_state == REQUEST_SENT and self.response_state == RESPONSE_HEAD:
            # the response's time begins when the last of the request has left
            if now:
                return self.await_response()
            return self.set_upstream_deadline(self.settings.body_idle, STAGE_UPLOAD)
        return 0

    cdef int on_pressure(self, int reason, bint now) except -1:
        if self.is_over():
            return 0
        if now:
            self.pressure |= reason
        else:
            self.pressure &= ~reason
        if self.tunnel is not None:
            return self.tunnel.on_pressure(reason, now)
        self.set_pauses()
        if not self.pressure and not self.is_over() and (self.own_answer is not None or (
                self.request_state == REQUEST_RELAY and (self.up is not None or self.up_stages is not None)
                and (self.buffered is not None or self.own_request is not None))):
            # the rest of what was collected, or is the handler's
            return self.take_later()
        return 0

    cdef int set_pauses(self) except -1:
        """Apply the pressure to what is read: of the request, only where something is kept of it."""
        cdef int both = PAUSE_HANDLER | PAUSE_BUDGET
        cdef bint holds_request = self.request_state == REQUEST_COLLECT or (
            self.request_state == REQUEST_RELAY and self.keeps_upload())
        if self.pressure and self.upstream is not None:
            self.upstream.pause(self.pressure)
        if self.pressure and holds_request:
            self.client.pause(self.pressure)
        if both & ~self.pressure or not holds_request:
            self.client.resume(both & ~self.pressure if holds_request else both)
        if not self.is_over() and self.upstream is not None and both & ~self.pressure:
            self.resume_upstream(both & ~self.pressure)
        return 0

    cdef int resume_upstream(self, int reason) except -1:
        if self.response_state == RESPONSE_RELAY and self.upstream.paused() & ~reason == 0 and self.upstream.paused():
            # the time in which we paused it is not its own
            self.await_download()
        self.upstream.resume(reason)
        return 0

    cdef bint reads_ahead(self) noexcept:
        # the sooner the upstream's connection is free for others, however long this client takes
        cdef int64_t more = self.client.unsent_total()
        if self.response_state != RESPONSE_RELAY or self.upstream is None or self.upstream.ends_by_close():
            return False
        more += max(self.upstream.content_left(), <int64_t>0)
        return more <= self.settings.read_ahead and self.settings.arena.budget.below_read_ahead_mark()

    cdef bint has_enough(self) noexcept:
        # of the request only: a handler that is behind with the response does not hold back the upload
        if self.request_state == REQUEST_COLLECT:
            return self.pressure != 0
        return (self.upstream is not None and self.upstream.is_write_paused()) or (
            self.up_stages is not None and self.up_stages.is_waiting()) or (self.pressure != 0 and self.keeps_upload())

    cdef bint keeps_upload(self) noexcept:
        return self.request_copy is not None or self.up is not None or self.up_stages is not None
