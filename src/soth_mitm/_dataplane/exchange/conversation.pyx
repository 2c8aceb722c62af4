"""One client connection that speaks HTTP/1: its answers of our own, its deadlines, its back-pressure, and its end."""

from soth_mitm._dataplane.http1.framing cimport BODY_DONE, BODY_LENGTH, BODY_NONE, BODY_UNTIL_CLOSE, body_eof
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.exchange.flow cimport VERDICT_BLOCKED, Flow
from soth_mitm._dataplane.wire.head cimport HTTP_1_0, METHOD_HEAD, Head
from soth_mitm._dataplane.transport.lingering_close cimport close_truncated, close_gracefully, close_lingering
from soth_mitm._dataplane.transport.callbacks cimport EndpointCallbacks
from soth_mitm._dataplane.upstream.pinned cimport Pin, authenticates_connection
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.upstream.pool cimport OriginPool, Upstream
from soth_mitm._dataplane.http1.encoder cimport own_response_bytes, text_line


cdef bint announces_nothing(Head response) noexcept:
    """Tell whether it announces content that its status does not have, and that may come all the same."""
    if response.status == 204:
        return response.chunked or response.content_length > 0
    return response.status == 304 and response.chunked


# not final: responding and exchange derive from it
cdef class Conversation(EndpointCallbacks):
    """What is under way on one client connection. `on_end()` is called once, when it is gone and every hook has returned."""

    def __cinit__(self, Settings settings not None, Endpoint client not None, on_end, **kwargs):
        self.settings = settings
        self.client = client
        self.on_end = on_end
        self.client_deadline = Deadline(self)
        self.upstream_deadline = Deadline(self)
        self.reader_deadline = Deadline(self)

    def drain(self):
        """Close when the current flow has ended, or now when there is none; what was switched to ends when it is quiet."""
        self.settings.arena.check_thread()
        self.keep = False
        if self.tunnel is not None:
            self.tunnel.drain()
        elif self.flow is None and not self.over:
            self.leave()

    def abort(self):
        """Cut the connection and whatever goes on over it."""
        self.settings.arena.check_thread()
        if self.tunnel is not None:
            self.tunnel.abort()
        self.cut(ConnectionAbortedError("aborted"))

    # --- answers of ours

    cdef int answer(self, int status, bytes text, object headers) except -1:
        cdef Flow flow = self.flow
        cdef bytes out
        cdef bytes body = text if headers is not None else text_line(text)
        # an unread rest of the request would be taken for the next one
        cdef bint unread = flow is None or flow.request_body.state != BODY_DONE
        if self.answered and self.answering == ANSWERING_DONE:
            return self.take_no_more()
        if self.answered:
            return self.cut_short(ConnectionAbortedError("failed after the response had begun"))
        if flow is not None:
            flow.status = status
            if flow.cause is None and flow.verdict != VERDICT_BLOCKED:
                flow.cause = text
        if unread or self.settings.draining or flow.request.version == HTTP_1_0 or self.is_pinned():
            self.keep = False
        out = own_response_bytes(status, body, headers, not self.keep, flow is not None and flow.request.method == METHOD_HEAD)
        self.client.send_bytes(out)
        self.settings.counters.bytes_to_clients += len(out)
        self.drop_upstream()
        if unread:
            close_lingering(self.client, self.settings)
            return self.stop()
        self.client.flush()
        self.answered = True
        self.sending = SENDING_SENT
        self.answering = ANSWERING_DONE
        return 0

    cdef int explain(self, int status, bytes text) except -1:
        return self.answer(status, text, None)

    cdef int refuse(self, int status, bytes text) except -1:
        self.settings.counters.requests_refused += 1
        return self.explain(status, text)

    cdef int reject(self) except -1:
        return self.refuse(413, b"the request body is longer than %d bytes (body.max_size_bytes)" % self.settings.body_limit)

    cdef int fail_upstream(self, int status, bytes text) except -1:
        self.settings.counters.upstream_errors += 1
        return self.explain(status, text)

    cdef int may_retry(self) except -1:
        # RFC 9112 section 9.3.1: only what can be sent again whole, does no harm twice, and met a connection that was closing anyway
        if self.flow.retried or self.upstream.served < 2 or self.is_pinned():
            return False
        return self.upstream.bytes_in == self.upstream_bytes_before and self.can_repeat()

    cdef bint can_repeat(self) noexcept:
        cdef Flow flow = self.flow
        if not self.settings.retry or flow.request_body.state != BODY_DONE:
            return False
        return (flow.request_body.kind == BODY_NONE or flow.collected is not None) and flow.is_repeatable()

    # --- ends

    cdef bint is_pinned(self) noexcept:
        return self.pin is not None and self.upstream is self.pin.upstream

    cdef int use_pin(self) except -1:
        cdef Upstream upstream
        if self.pin.pool is not self.flow.route.pool:
            return 0
        upstream = self.pin.take()
        if upstream is None:
            self.keep = False
            self.fail_upstream(502, f"{self.pin.pool.origin} closed the connection that this client had authenticated on".encode())
        else:
            self.on_pool_ready(upstream)
        return 1

    cdef int part_with(self, Upstream upstream, Flow flow) except -1:
        cdef OriginPool pool = upstream.pool
        cdef bint pinned = self.pin is not None and self.pin.upstream is upstream
        # behind: with an early answer the last of the request may still be here, and nobody else's is to wait until it is taken
        if (pool is None or not flow.response.keeps_alive() or upstream.read_buffer.size() or upstream.has_unsent
                or flow.response_body.kind == BODY_UNTIL_CLOSE or announces_nothing(flow.response)):
            if pool is not None:
                pool.forget(upstream)
            # whom the server knew by it is not to go on as if it still did
            self.keep = self.keep and not pinned
            return close_gracefully(upstream, self.settings)
        upstream.obey(flow.response)
        if not pinned and authenticates_connection(flow.request, flow.response):
            if self.pin is not None:
                self.pin.close()
            self.pin = Pin(self, upstream)
            self.settings.counters.pool_pins += 1
            pinned = True
        return self.pin.park() if pinned else pool.give_back(upstream)

    cdef int end_flow(self) except -1:
        cdef Flow flow = self.flow
        cdef Upstream upstream = self.upstream
        self.upstream = None
        self.upstream_deadline.clear()
        if upstream is not None:
            self.part_with(upstream, flow)
        self.flow = None
        self.is_paced = False
        # a head that is malformed or late is answered, whatever came before it
        self.answered = False
        self.answering = ANSWERING_NONE
        self.sending = SENDING_HEAD
        if self.keep:
            flow.end()
            return 0 if self.over else self.next_request()
        flow.end()
        if self.client.read_buffer.size():
            # closing on unread requests would reset the connection, and the client might lose the answer
            close_lingering(self.client, self.settings)
            return self.stop()
        return self.leave()

    cdef int take_no_more(self) except -1:
        self.drop_upstream()
        close_lingering(self.client, self.settings)
        return self.stop()

    cdef int leave(self) except -1:
        close_gracefully(self.client, self.settings)
        return self.stop()

    cdef int advance(self) except -1:
        return 0

    cdef int decide(self) except -1:
        return 0

    cdef int response_done(self) except -1:
        return 0

    cdef int next_request(self) except -1:
        return 0

    cdef int cut(self, object error) except -1:
        if self.over:
            return 0
        self.note_cut(error)
        self.client.abort(error)
        return self.stop()

    cdef int cut_short(self, object error) except -1:
        cdef Flow flow = self.flow
        cdef bint shown = True
        if self.over:
            return 0
        self.note_cut(error)
        if flow is not None and self.answering == ANSWERING_RELAY:
            shown = flow.response_body.kind != BODY_UNTIL_CLOSE and not flow.unchunked
        close_truncated(self.client, self.settings, shown, error)
        return self.stop()

    cdef int note_cut(self, object error) except -1:
        if self.flow is not None and self.flow.cause is None:
            self.flow.cause = error
        if self.flow is not None and self.answered and self.answering != ANSWERING_DONE:
            self.settings.counters.responses_cut += 1
        return 0

    cdef int drop_upstream(self) except -1:
        cdef Upstream upstream = self.upstream
        if upstream is None:
            return 0
        self.upstream = None
        if upstream.pool is not None:
            upstream.pool.forget(upstream)
        return upstream.abort(None)

    cdef int stop(self) except -1:
        cdef Flow flow = self.flow
        if self.over:
            return 0
        self.over = True
        self.flow = None
        self.client_deadline.clear()
        self.upstream_deadline.clear()
        self.reader_deadline.clear()
        if self.half_closed is not None:
            self.half_closed.clear()
        if self.asking is not None:
            # nobody else wants to know
            self.asking.give_up()
            self.asking = None
        if flow is not None:
            if self.sending == SENDING_CLAIM:
                flow.route.pool.withdraw(self)
            self.drop_upstream()
            flow.end_response(False)
            flow.end()
        if self.pin is not None:
            self.pin.close()
            self.pin = None
        return 0

    def tunnel_ended(self):
        """The connections that had switched protocols are closing. Called by the tunnel."""
        self.stop()
        if self.client.gone:
            self.check_end()
        else:
            self.client.callbacks = self

    cdef int on_exchange_done(self, object flow) except -1:
        self.unsettled -= 1
        if self.sending == SENDING_HEAD and self.client.reading_paused and not self.over:
            return self.next_head()
        return self.check_end()

    cdef int later(self) except -1:
        if not self.is_due:
            self.is_due = True
            self.settings.hooks.loop.call_soon(self.take_turn)
        return 0

    def take_turn(self):
        """Go on with what one turn of the loop was too short for. Called by the loop."""
        cdef bint behind = self.is_behind
        self.is_due = False
        if self.over:
            return
        self.is_behind = False
        self.advance()
        if behind and not self.is_behind and not self.over and self.upstream is not None:
            if not self.client.write_paused and not self.is_paced:
                self.go_on()

    cdef int next_head(self) except -1:
        self.client.resume_reading()
        return self.advance()

    cdef int check_end(self) except -1:
        if self.over and self.client.gone and self.unsettled == 0 and not self.told_end:
            self.told_end = True
            self.on_end()
        return 0

    # --- what the endpoints say

    cdef int on_eof(self, object endpoint, bint clean) except -1:
        if endpoint is self.upstream:
            if self.answering == ANSWERING_RELAY and clean and body_eof(&self.flow.response_body) == 0:
                self.response_done()
                return self.advance()
            return self.upstream_gone(ConnectionResetError("the upstream closed the connection"))
        if endpoint is not self.client or self.over:
            return 0
        if self.client.eof:
            self.serve_half_closed()
        if self.sending == SENDING_HEAD:
            # a head that came before its end is answered
            return self.advance()
        if self.client.read_buffer.size() == 0:
            self.keep = False
        if not clean or self.flow.request_body.state != BODY_DONE:
            return self.cut(ConnectionResetError("the client closed the connection"))
        return 0

    cdef int on_fin(self, object endpoint) except -1:
        return self.serve_half_closed() if endpoint is self.client and not self.over else 0

    cdef int serve_half_closed(self) except -1:
        # One that closed both directions looks the same. It is found out by what it is sent, so time runs only while it is sent nothing.
        if self.half_closed is None:
            self.half_closed = Deadline(self)
        self.half_closed_at = self.client.bytes_out
        return self.half_closed.set(self.settings.half_closed, LATE_HALF_CLOSED)

    cdef int on_closed(self, object endpoint, object error) except -1:
        if endpoint is self.client:
            self.cut(error)
            return self.check_end()
        if endpoint is self.upstream:
            return self.upstream_gone(error or ConnectionResetError("the upstream closed the connection"))
        if self.pin is not None and endpoint is self.pin.upstream and not self.over:
            # whom the server knew by it is not to go on as if it still did
            self.keep = False
            if self.flow is None:
                return self.leave()
        return 0

    cdef int upstream_gone(self, object error) except -1:
        cdef object refusal = None
        if self.answering == ANSWERING_HEAD:
            if self.upstream.pool is not None:
                refusal = self.upstream.pool.blame(self.upstream, error, False)
            if refusal is not None:
                self.fail_upstream(refusal.status, str(refusal).encode())
                return self.advance()
            if self.may_retry():
                self.settings.counters.retries += 1
                self.flow.retried = True
                self.drop_upstream()
                self.answering = ANSWERING_NONE
                self.sending = SENDING_CLAIM
                self.upstream_deadline.set(self.settings.claim, LATE_CLAIM)
                return self.flow.route.pool.claim_new(self)
            self.fail_upstream(502, f"{self.flow.route.pool.origin} closed the connection before it answered".encode())
            return self.advance()
        if self.answering == ANSWERING_RELAY:
            self.settings.counters.upstream_errors += 1
            return self.cut_short(error)
        if self.sending == SENDING_RELAY and self.flow.request_body.state == BODY_DONE:
            self.send_no_more()
            return self.advance()
        if self.sending == SENDING_RELAY:
            # what is left of the request has nowhere to go
            return self.take_no_more()
        return self.drop_upstream()

    # --- pace and deadlines

    cdef int on_writable(self, object endpoint, bint now) except -1:
        if self.over:
            return 0
        if endpoint is self.client:
            if now:
                self.reader_deadline.clear()
            else:
                self.await_reader()
            if self.upstream is not None:
                if self.is_paced or not (now or self.reads_ahead()):
                    self.upstream.pause_reading()
                elif now:
                    self.go_on()
            elif now and self.sending == SENDING_HEAD:
                return self.next_head()
        elif endpoint is self.upstream and self.sending == SENDING_RELAY:
            if not now:
                return self.client.pause_reading()
            self.await_upload()
            if self.flow.collected is not None:
                # what was collected goes first
                self.advance()
            if not self.over and self.sending == SENDING_RELAY and not self.has_enough():
                self.client.resume_reading()
        elif endpoint is self.upstream and self.sending == SENDING_SENT and self.answering == ANSWERING_HEAD:
            # the answer's time begins when the last of the request has left
            if now:
                self.upstream_deadline.set(self.settings.response_head, LATE_RESPONSE)
            else:
                self.upstream_deadline.set(self.settings.body_idle, LATE_UPLOAD)
        return 0

    cdef int go_on(self) except -1:
        if self.is_behind:
            return 0
        # the time in which we held it back is not its own
        if self.answering == ANSWERING_RELAY:
            self.upstream_deadline.set(self.settings.body_idle, LATE_DOWNLOAD)
        return self.upstream.resume_reading()

    cdef int on_backpressure(self, bint hold) except -1:
        if self.over or self.flow is None:
            return 0
        self.is_paced = hold
        if self.sending in (SENDING_COLLECT, SENDING_RELAY):
            if self.has_enough():
                self.client.pause_reading()
            else:
                self.client.resume_reading()
            if not hold and self.flow.up is not None and self.flow.collected is not None:
                # the rest of what was collected
                self.later()
        if self.upstream is not None:
            if hold:
                self.upstream.pause_reading()
            elif not self.client.write_paused or self.reads_ahead():
                self.go_on()
        return 0

    cdef bint reads_ahead(self) noexcept:
        # the sooner the upstream connection is free for others, however long this client takes
        cdef int64_t more = self.client.unsent
        if self.answering != ANSWERING_RELAY or self.flow.response_body.kind == BODY_UNTIL_CLOSE:
            return False
        if self.flow.response_body.kind == BODY_LENGTH:
            more += self.flow.response_body.remaining
        return more <= self.settings.read_ahead and self.settings.arena.budget.below_read_ahead_mark()

    cdef int64_t taken_by_reader(self) except -1:
        return self.client.bytes_out - <int64_t>self.client.transport.get_write_buffer_size()

    cdef int await_reader(self) except -1:
        self.reader_took = self.taken_by_reader()
        return self.reader_deadline.set(self.settings.body_idle, LATE_READER)

    cdef bint has_enough(self) noexcept:
        # of the request only: a handler that is behind with the response does not hold back the upload
        if self.sending == SENDING_COLLECT:
            return self.is_paced
        return (self.upstream is not None and self.upstream.write_paused) or (
            self.is_paced and (self.flow.payload is not None or self.flow.up is not None))

    cdef int end_wait(self) except -1:
        self.is_paced = False
        self.flow.wait_no_more()
        # which tells us what happened meanwhile
        self.client.resume_reading()
        return self.over

    cdef bint owes_continue(self) noexcept:
        cdef Flow flow = self.flow
        return (flow.request.expect_continue and not flow.continued and flow.request_body.payload_total == 0
                and self.upstream is not None and self.upstream.bytes_in == self.upstream_bytes_before)

    cdef int await_upload(self) except -1:
        cdef bint said = self.answering == ANSWERING_DONE and self.flow.request_body.state == BODY_DONE
        # a client that has said everything and has its answer does not wait for long until the upstream has heard all of it
        return self.client_deadline.set(self.settings.linger if said else self.settings.body_idle, LATE_UPLOAD)

    cdef int send_no_more(self) except -1:
        self.client_deadline.clear()
        self.sending = SENDING_SENT
        return self.drop_upstream()

    cdef int on_hook_abort(self, object error) except -1:
        return self.cut_short(error)

    cdef int on_deadline(self, int stage) except -1:
        if self.over:
            return 0
        if stage == LATE_IDLE:
            return self.leave()
        if stage == LATE_READER and self.taken_by_reader() > self.reader_took:
            # slowly, but it reads
            return self.await_reader()
        if stage == LATE_HALF_CLOSED:
            if self.client.write_paused or self.client.bytes_out != self.half_closed_at:
                return self.serve_half_closed()
            self.keep = False
            if self.flow is None:
                return self.leave()
            if self.sending == SENDING_CLAIM:
                self.flow.route.pool.withdraw(self)
            self.explain(504, b"the client ended its direction, and nothing came for it in time (timeouts.half_closed_client_ms)")
        elif stage == LATE_COLLECT:
            self.decide()
        elif stage == LATE_HEAD:
            self.refuse(408, b"the request head did not arrive in time (timeouts.client_head_ms)")
        elif stage == LATE_UPLOAD and self.answering == ANSWERING_DONE and self.flow.request_body.state == BODY_DONE:
            # the upstream has answered, and takes no more of what was collected
            self.send_no_more()
        elif stage == LATE_UPLOAD and self.upstream is not None and self.upstream.write_paused:
            self.settings.counters.upstream_timeouts += 1
            self.explain(504, b"the upstream stopped taking the request body (timeouts.body_idle_ms)")
        elif stage == LATE_UPLOAD and self.has_enough():
            # the client waits for us
            return self.await_upload()
        elif stage == LATE_UPLOAD and self.owes_continue():
            self.settings.counters.upstream_timeouts += 1
            self.explain(504, b"the upstream neither asked for the request body nor answered (timeouts.body_idle_ms)")
        elif stage == LATE_UPLOAD:
            self.refuse(408, b"the request body stopped arriving (timeouts.body_idle_ms)")
        elif stage == LATE_CLAIM:
            self.flow.route.pool.withdraw(self)
            self.settings.counters.upstream_timeouts += 1
            self.explain(503, b"no upstream connection became free in time (connection_pool.max_connections_per_host)")
        elif stage == LATE_RESPONSE:
            self.settings.counters.upstream_timeouts += 1
            self.explain(504, b"the upstream did not answer in time (upstream.timeout_ms)")
        elif stage == LATE_DOWNLOAD and self.upstream is not None and self.upstream.reading_paused:
            # whoever holds it back, a client that does not read or a handler that is behind, has a deadline of its own
            return 0
        elif stage == LATE_DOWNLOAD:
            self.settings.counters.upstream_timeouts += 1
            return self.cut_short(TimeoutError("the body stopped moving (timeouts.body_idle_ms)"))
        else:
            return self.cut(TimeoutError("the client stopped reading (timeouts.body_idle_ms)"))
        return self.advance()
