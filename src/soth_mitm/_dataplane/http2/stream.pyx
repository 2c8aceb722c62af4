"""One exchange's end on an HTTP/2 connection, and what drives the connection's session.

Content is shown where it lies. What the exchange does not take is kept by the session, within the stream's window, and the peer
is given credit for what was taken. So a pause needs nothing but not to take. The socket is never paused.

What the exchange gives is written at once, as far as the windows and the turn allow. The rest waits in `out`, and room() is 0
until it has left.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from cpython.time cimport monotonic
from libc.stdint cimport int64_t, uint32_t

from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport NO_ROOM_LIMIT, HttpConnection, Piece, Stream, StreamCallbacks
from soth_mitm._dataplane.http1.framing cimport BODY_DONE, BODY_FAILED, body_add, body_end, body_error_text
from soth_mitm._dataplane.http2.frame cimport (
    CANCEL, COMPRESSION_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, INTERNAL_ERROR, NO_ERROR, PROTOCOL_ERROR, SETTINGS_TIMEOUT,
    STREAM_CLOSED, error_code_name,
)
from soth_mitm._dataplane.http2.outlet cimport new_outlet
from soth_mitm._dataplane.http2.session cimport Session, SessionCallbacks
from soth_mitm._dataplane.http2.session_stream cimport WAIT_NOTHING, SessionStream
from soth_mitm._dataplane.memory.buffer cimport Buffer
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.memory.view cimport view_of
from soth_mitm._dataplane.transport.callbacks cimport PAUSE_BUFFER_FULL
from soth_mitm._dataplane.wire.head cimport Head

from soth_mitm.errors import Http2StreamReset, WireError


cdef int64_t code_of(object error) except -1:
    cdef uint32_t code
    if error is None or isinstance(error, TimeoutError):
        # not needed any more, or a deadline of ours
        return CANCEL
    if not isinstance(error, Http2StreamReset):
        return INTERNAL_ERROR
    code = error.code
    # what a peer did wrong is not the other peer's fault, and what was cut is no success
    if code in (NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR, COMPRESSION_ERROR):
        return INTERNAL_ERROR
    return code


def reset_code(error):
    """Return the code of the RST_STREAM that tells a peer of `error`. For tests."""
    return code_of(error)


# not final: each side of the proxy has its own
cdef class SessionDriver(SessionCallbacks):
    """What stands between a connection's socket and its session."""

    cdef int open(self, HttpConnection connection, Settings settings, bint is_server) except -1:
        self.connection = connection
        self.settings = settings
        self.endpoint = connection.endpoint
        self.outlet = new_outlet(self.endpoint, settings, is_server)
        self.session = Session(is_server, self.endpoint.arena, settings.http2_memory,
                               settings.client_http2 if is_server else settings.upstream_http2, self.outlet, self,
                               settings.counters, is_server)
        # they wait for the connection, which passes on their stages
        self.settings_deadline = Deadline(connection)
        self.block_deadline = Deadline(connection)
        self.stall_deadline = Deadline(connection)
        return 0

    cdef int begin(self) except -1:
        self.session.now = monotonic()
        self.session.begin()
        return self.settings_deadline.set(self.settings.http2_settings, STAGE_SETTINGS)

    # ---- octets in

    cdef int feed(self) except -1:
        cdef Buffer buffer = self.endpoint.read_buffer
        cdef Session session = self.session
        cdef Py_ssize_t count
        if self.is_feeding or self.is_turn_due or self.has_lost or self.endpoint.is_gone() or buffer.size() == 0:
            return 0
        session.now = monotonic()
        self.is_feeding = True
        try:
            count = session.feed(buffer.data(), buffer.size())
        finally:
            self.is_feeding = False
        self.count_in(count)
        if self.endpoint.is_gone():
            return 0
        buffer.consume(count)
        if session.has_failed:
            return self.end_session()
        if session.has_more:
            self.is_turn_due = True
            self.settings.hooks.loop.call_soon(self.take_turn)
        elif buffer.size():
            buffer.shrink()
        if session.is_acknowledged and self.settings_deadline.queue is not None:
            self.settings_deadline.clear()
        if session.incomplete_since < 0:
            self.block_deadline.clear()
        elif self.block_deadline.queue is None:
            self.block_deadline.set(self.settings.client_head, STAGE_BLOCK)
        self.on_fed()
        if self.endpoint.paused & PAUSE_BUFFER_FULL and not self.is_turn_due:
            return self.endpoint.resume_reading(PAUSE_BUFFER_FULL)
        return 0

    def take_turn(self):
        """Go on with the octets for which one turn of the loop was too short. Called by the loop."""
        self.is_turn_due = False
        self.feed()

    cdef int end_session(self) except -1:
        """The session has failed, and its streams with it."""
        if self.has_lost or self.is_feeding:
            return 0
        self.lose_streams(self.failure)
        return self.on_session_over()

    # ---- octets out

    cdef int serve(self) except -1:
        if self.session.ring.first is None or self.has_lost:
            return 0
        self.session.now = monotonic()
        self.session.serve()
        return self.await_progress()

    cdef int await_progress(self) except -1:
        if self.stall_deadline.queue is None and not self.has_lost:
            return self.stall_deadline.set(self.settings.http2_stall, STAGE_STALL)
        return 0

    # ---- deadlines

    cdef int on_stage(self, int stage) except -1:
        cdef SessionStream stream
        cdef bint some_wait = False
        if self.has_lost:
            return 0
        self.session.now = monotonic()
        if stage == STAGE_SETTINGS:
            # its time has passed, whatever our two clocks say of the last microsecond
            self.session.check_settings(0)
        elif stage == STAGE_BLOCK:
            self.session.check_head()
            if not self.session.has_failed and self.session.incomplete_since >= 0:
                self.block_deadline.set(self.settings.client_head, STAGE_BLOCK)
        else:
            self.session.check_stalls()
            for stream in self.session.streams.values():
                if stream.wait != WAIT_NOTHING:
                    some_wait = True
                    break
            if some_wait:
                self.await_progress()
        if self.session.has_failed:
            return self.end_session()
        return self.on_fed()

    # ---- how it ends

    cdef int lose_streams(self, object error) except -1:
        cdef SessionStream stream
        cdef Http2Stream owner
        # with the last of them the connection may be over, and part with its session
        cdef Session session = self.session
        if self.has_lost:
            return 0
        self.has_lost = True
        self.settings_deadline.clear()
        self.block_deadline.clear()
        self.stall_deadline.clear()
        session.lose()
        for stream in session.lost or ():
            owner = <Http2Stream>stream.owner
            if owner is not None:
                owner.on_lost(error)
        session.lost = None
        return 0

    cdef int detach(self) except -1:
        self.connection = None
        if self.session is not None:
            # it may still be reading
            self.session.callbacks = SessionCallbacks()
            self.session = None
        return 0

    # ---- what the session tells of streams

    cdef Py_ssize_t on_stream_data(self, SessionStream stream, const char* data, Py_ssize_t length) except -1:
        cdef Http2Stream owner = <Http2Stream>stream.owner
        return length if owner is None else owner.on_data(data, length)

    cdef int on_stream_trailers(self, SessionStream stream, bytes lines) except -1:
        cdef Http2Stream owner = <Http2Stream>stream.owner
        return 0 if owner is None else owner.on_trailers(lines)

    cdef int on_stream_end(self, SessionStream stream) except -1:
        cdef Http2Stream owner = <Http2Stream>stream.owner
        return 0 if owner is None else owner.on_end()

    cdef int on_stream_reset(self, SessionStream stream, uint32_t code, bint by_peer) except -1:
        cdef Http2Stream owner = <Http2Stream>stream.owner
        return 0 if owner is None else owner.on_stream_reset(code, by_peer)

    cdef int on_stream_writable(self, SessionStream stream) except -1:
        cdef Http2Stream owner = <Http2Stream>stream.owner
        return 0 if owner is None else owner.on_writable()

    cdef int on_failed(self, uint32_t code, str text) except -1:
        self.failure = ConnectionResetError(f"the HTTP/2 connection ended with {error_code_name(code)}: {text}")
        return 0

    # ---- what each side has of its own

    cdef int count_in(self, Py_ssize_t count) except -1:
        return 0

    cdef int on_session_over(self) except -1:
        return self.endpoint.close()

    cdef int on_fed(self) except -1:
        return 0


# not final: each side of the proxy has its own
cdef class Http2Stream(Stream):
    """What both sides of HTTP/2 share."""

    cdef int attach(self, SessionDriver driver, SessionStream stream, Settings settings) except -1:
        self.driver = driver
        self.session = driver.session
        self.stream = stream
        self.settings = settings
        stream.owner = self
        return 0

    cdef int end_at_head(self) except -1:
        self.has_all = True
        body_end(&self.body)
        return 0

    # ---- what the session tells

    cdef Py_ssize_t on_data(self, const char* data, Py_ssize_t length) except -1:
        # nothing else may hold it, and it may end in the call
        cdef StreamCallbacks exchange = self.callbacks
        self.has_heard = True
        if exchange is None:
            return length
        if self.reasons:
            self.has_news = True
            return 0
        self.shown = data
        self.shown_size = length
        self.shown_taken = 0
        # an end that stands on the frame is known with its last octet
        self.has_all = self.session.data_ends and self.session.data_left == 0
        try:
            exchange.on_content(self)
        finally:
            self.shown = NULL
            self.has_all = self.body.state == BODY_DONE
            self.covered = 0
        return length if self.callbacks is None else self.shown_taken

    cdef int on_trailers(self, bytes lines) except -1:
        self.trailers = lines
        return 0

    cdef int on_end(self) except -1:
        self.has_all = self.has_heard = True
        # while content is taken, the one that takes it looks at the end itself
        return 0 if self.is_taking or self.body.state == BODY_DONE or self.callbacks is None else self.tell()

    cdef int tell(self) except -1:
        cdef StreamCallbacks exchange = self.callbacks
        if self.reasons:
            self.has_news = True
            return 0
        self.has_news = False
        return exchange.on_content(self)

    cdef int on_stream_reset(self, uint32_t code, bint by_peer) except -1:
        side = "upstream" if self.is_upstream else "client"
        if by_peer:
            return self.fail(Http2StreamReset(code, side))
        if code == CANCEL:
            return self.fail(TimeoutError(f"the {side} does not take what it is sent (http2.stall_timeout_ms)"))
        return self.fail(WireError(f"the {side} broke the rules of HTTP/2: {error_code_name(code)}", side=side, status=502))

    cdef int on_lost(self, object error) except -1:
        return self.fail(ConnectionResetError("the connection was closed") if error is None else error)

    cdef int fail(self, object error) except -1:
        cdef StreamCallbacks exchange = self.callbacks
        self.is_closed = True
        self.drop_out()
        if exchange is None:
            return self.let_go()
        if self.is_upstream and self.stream.has_ended and self.body.state != BODY_DONE:
            # the message came whole, and some of it is not relayed yet
            return 0
        return exchange.on_reset(self, error)

    cdef int on_writable(self) except -1:
        cdef StreamCallbacks exchange
        cdef Buffer out = self.out
        cdef bint is_end = self.has_end and not self.out_trailers
        if self.waiting():
            out.consume(self.session.data(self.stream, out.data(), out.size(), is_end))
            if out.size():
                return 0
            if self.has_end:
                if is_end:
                    self.on_all_sent()
                else:
                    self.finish()
        exchange = self.callbacks
        return 0 if exchange is None else exchange.on_stream_writable(self, True)

    # ---- content that comes in

    cdef Py_ssize_t lying(self, const char** data) noexcept:
        if self.shown != NULL:
            data[0] = self.shown + self.shown_taken
            return self.shown_size - self.shown_taken
        if self.stream.kept is None:
            return 0
        data[0] = self.stream.kept.data()
        return self.stream.kept.size()

    cdef bytes coming_trailers(self):
        return self.trailers if self.has_all else self.stream.trailers_wait

    cdef int next_piece(self, Piece* piece, Py_ssize_t most) except -2:
        cdef const char* data = NULL
        cdef Py_ssize_t here = self.lying(&data) - self.covered, count
        cdef bytes lines
        cdef bint is_all
        piece.content = view_of(NULL, 0)
        piece.trailers = view_of(NULL, 0)
        if self.body.state == BODY_FAILED:
            return -1
        if self.body.state == BODY_DONE:
            return 0
        is_all = self.has_all or (self.shown == NULL and self.stream.end_waits)
        if here > 0:
            count = min(here, most)
            if count <= 0:
                return 0
            if body_add(&self.body, count) < 0:
                return -1
            piece.content = view_of(data + self.covered, count)
            self.covered += count
            if count == here and is_all and self.coming_trailers() is None:
                body_end(&self.body)
            return 1
        if not is_all:
            return 0
        if body_end(&self.body) < 0:
            return -1
        lines = self.coming_trailers()
        if lines is None:
            return 0
        # which the view is of
        self.trailers = lines
        piece.trailers = view_of(PyBytes_AS_STRING(lines), len(lines))
        return 1

    cdef Py_ssize_t take_content(self) except -1:
        cdef Py_ssize_t count = self.covered
        self.covered = 0
        if count == 0:
            return 0
        if self.shown != NULL:
            self.shown_taken += count
            return count
        self.session.now = monotonic()
        self.is_taking = True
        try:
            self.session.consume(self.stream, count)
        finally:
            self.is_taking = False
        return count

    cdef bint is_complete(self) noexcept:
        return self.body.state == BODY_DONE

    cdef bint has_content(self) noexcept:
        cdef const char* data = NULL
        return self.body.state != BODY_DONE and self.lying(&data) > self.covered

    cdef bint is_malformed(self) noexcept:
        return self.body.state == BODY_FAILED

    cdef int64_t content_total(self) noexcept:
        return self.body.payload_total

    cdef int64_t content_left(self) noexcept:
        return 0 if self.body.state == BODY_DONE else self.body.remaining

    cdef str error_text(self):
        return body_error_text(self.body.error)

    cdef int pause(self, int reason) except -1:
        self.reasons |= reason
        return 0

    cdef bint resume(self, int reason) except -1:
        # the exchange may let go of us in the call
        cdef Http2Stream this = self
        if self.reasons & reason:
            self.reasons &= ~reason
            if not self.reasons and self.has_news and self.callbacks is not None:
                this.tell()
        return this.reasons == 0

    cdef int paused(self) noexcept:
        return self.reasons

    # ---- what goes out

    cdef int note_head(self, bint is_end) except -1:
        if is_end:
            self.has_end = True
            return self.on_all_sent()
        return 0

    cdef Py_ssize_t waiting(self) noexcept:
        return 0 if self.out is None else self.out.size()

    cdef int send_content(self, const char* data, Py_ssize_t length) except -1:
        cdef Py_ssize_t taken = 0
        cdef bint waited
        if length == 0 or self.is_closed or self.has_end:
            return 0
        if self.waiting() == 0:
            waited = self.stream.waits_since >= 0
            taken = self.session.data(self.stream, data, length, False)
            if taken == length or self.stream.wait == WAIT_NOTHING:
                return 0
            # only what has to wait needs to know since when
            self.session.now = monotonic()
            if not waited:
                self.stream.waits_since = self.session.now
            self.driver.await_progress()
        if self.out is None:
            self.out = Buffer(self.session.arena)
        return self.out.append_exact(data + taken, length - taken)

    cdef int send_end(self, bytes trailers) except -1:
        if self.is_closed or self.has_end:
            return 0
        self.has_end = True
        self.out_trailers = trailers
        return 0 if self.waiting() else self.finish()

    cdef int finish(self) except -1:
        """Write what ends the message, for which no room is needed."""
        if self.out_trailers:
            self.session.trailers(self.stream, self.out_trailers)
        else:
            self.session.data(self.stream, NULL, 0, True)
        return self.on_all_sent()

    cdef int on_all_sent(self) except -1:
        self.has_sent_all = True
        if self.resets_when_sent:
            self.session.reset(self.stream, NO_ERROR)
        return self.let_go() if self.is_left else 0

    cdef int drop_out(self) except -1:
        if self.out is not None:
            self.out.drop()
        return 0

    cdef Py_ssize_t room(self) noexcept:
        if self.is_closed or self.has_end:
            return NO_ROOM_LIMIT
        return 0 if self.waiting() else self.session.room(self.stream)

    cdef int await_room(self) except -1:
        if self.is_closed or self.has_end or self.waiting():
            # what waits is followed by on_stream_writable() anyway
            return 0
        self.session.now = monotonic()
        self.session.await_room(self.stream)
        return self.driver.await_progress()

    cdef bint is_write_paused(self) noexcept:
        if self.is_closed:
            return False
        return self.waiting() > 0 or (not self.has_end and self.session.room(self.stream) == 0)

    cdef int64_t unsent_total(self) noexcept:
        return self.waiting() + self.driver.outlet.unsent()

    # ---- how it ends

    cdef int leave(self) except -1:
        cdef Py_ssize_t kept = self.stream.kept_size()
        self.callbacks = None
        self.is_left = True
        if kept:
            # nothing wants it
            self.session.consume(self.stream, kept)
        return self.let_go() if self.is_closed or self.waiting() == 0 else 0

    cdef int let_go(self) except -1:
        return 0 if self.stream.is_released else self.session.release(self.stream)

    cdef int release(self, Head request, Head response, HttpConnection client) except -1:
        if not self.is_closed and not self.has_end:
            # it was not used
            return self.reset(None)
        return self.leave()

    cdef int refuse_rest(self) except -1:
        if not self.is_closed and not self.has_all and not self.stream.end_waits:
            # behind the last octet of the response, or clients drop it (RFC 9113 section 8.1)
            self.resets_when_sent = True
            if self.has_sent_all:
                self.session.reset(self.stream, NO_ERROR)
        self.leave()
        return 1

    cdef int reset_with(self, uint32_t code) except -1:
        if self.is_closed:
            return 0
        self.is_closed = True
        self.drop_out()
        self.session.now = monotonic()
        return self.session.reset(self.stream, code)

    cdef int reset(self, object error) except -1:
        self.reset_with(<uint32_t>code_of(error))
        return self.leave()

    cdef bint is_silent(self) noexcept:
        return not self.has_heard

    cdef bint is_multiplexed(self) noexcept:
        return True

    cdef int64_t number(self) noexcept:
        return self.stream.id

    cdef bint is_peer_gone(self) noexcept:
        return self.is_closed

    cdef HttpConnection connection(self):
        return self.driver.connection
