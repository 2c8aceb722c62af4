# What both sides of HTTP/2 share: one exchange's end on a connection that has many (Http2Stream), and what
# stands between such a connection's socket and its session (SessionDriver).

from libc.stdint cimport int64_t, uint32_t

from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport HttpConnection, Stream
from soth_mitm._dataplane.http1.framing cimport Body
from soth_mitm._dataplane.http2.outlet cimport EndpointOutlet
from soth_mitm._dataplane.http2.session cimport Session, SessionCallbacks
from soth_mitm._dataplane.http2.session_stream cimport SessionStream
from soth_mitm._dataplane.memory.buffer cimport Buffer
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.transport.endpoint cimport Endpoint


# Stages of a connection's deadlines that its driver handles; those of the connection itself begin behind them
cdef enum DriverStage:
    STAGE_SETTINGS = 1         # our SETTINGS are not acknowledged
    STAGE_BLOCK                # a header block or frame is not complete
    STAGE_STALL                # do streams that have something to write move?
    DRIVER_STAGES_END


# The session of one connection, and what it needs of the loop. Each side of the proxy derives from it, and
# overrides those SessionCallbacks that are not of one stream. The connection passes on what its
# endpoint and its deadlines tell.
cdef class SessionDriver(SessionCallbacks):
    cdef HttpConnection connection     # None: the connection is gone and settled
    cdef Settings settings
    cdef Endpoint endpoint
    cdef EndpointOutlet outlet
    cdef Session session
    cdef bint is_feeding
    cdef bint is_turn_due              # the loop will call take_turn()
    cdef bint has_lost                 # the streams were told that the connection is over
    cdef object failure                # why: an exception, from on_failed()
    cdef Deadline settings_deadline
    cdef Deadline block_deadline
    cdef Deadline stall_deadline

    cdef int open(self, HttpConnection connection, Settings settings, bint is_server) except -1
    # SETTINGS; the peer has http2.settings_timeout_ms for its own
    cdef int begin(self) except -1
    # For EndpointCallbacks of the connection: on_data, on_flushed, on_writable(True)
    cdef int feed(self) except -1
    cdef int serve(self) except -1
    # For on_deadline() with a DriverStage
    cdef int on_stage(self, int stage) except -1
    cdef int end_session(self) except -1
    # There is no connection any more: tell the streams
    cdef int lose_streams(self, object error) except -1
    # It is gone and settled: drop what refers to us
    cdef int detach(self) except -1
    # A stream has content that its peer does not take
    cdef int await_progress(self) except -1

    # ---- for the two sides
    cdef int count_in(self, Py_ssize_t count) except -1
    # The session has failed, and wrote its GOAWAY: close. Never called while octets are read
    cdef int on_session_over(self) except -1
    # Octets were read, or a deadline was looked at
    cdef int on_fed(self) except -1


cdef class Http2Stream(Stream):
    cdef SessionDriver driver
    cdef Session session
    cdef SessionStream stream
    cdef Settings settings             # of the exchange
    cdef bint is_upstream              # a response comes in
    # in
    cdef Body body
    cdef const char* shown             # content that the session shows right now; NULL: none, look at what is kept
    cdef Py_ssize_t shown_size
    cdef Py_ssize_t shown_taken
    cdef Py_ssize_t covered            # of what lies here, by pieces
    cdef bytes trailers                # that came
    cdef bint has_all                  # the session told of the end, and of trailers
    cdef bint has_heard                # something came
    cdef bint has_news                 # and was not told, since reading is paused
    cdef bint is_taking                # take_content() is at work
    cdef int reasons                   # PauseReason bits
    # out
    cdef Buffer out                    # content that waits for room; None: there never was any
    cdef bint has_end                  # send_end() was called, or the head was all
    cdef bint has_sent_all             # END_STREAM was written
    cdef bytes out_trailers
    cdef bint resets_when_sent         # the rest of the peer's message is not wanted: RST_STREAM behind END_STREAM
    # how it ends
    cdef bint is_closed                # reset by one of the two, or the connection is over
    cdef bint is_left                  # its exchange has left it

    # `stream` is new, and belongs to us from now on
    cdef int attach(self, SessionDriver driver, SessionStream stream, Settings settings) except -1
    # The body of the message that comes in has ended with its head
    cdef int end_at_head(self) except -1

    # ---- what the driver tells
    cdef Py_ssize_t on_data(self, const char* data, Py_ssize_t length) except -1
    cdef int on_trailers(self, bytes lines) except -1
    cdef int on_end(self) except -1
    cdef int on_stream_reset(self, uint32_t code, bint by_peer) except -1
    cdef int on_writable(self) except -1
    cdef int on_lost(self, object error) except -1

    # ---- for the two sides
    # Nothing more comes, and what was told before is not all
    cdef int fail(self, object error) except -1
    # The exchange has left it, and all that it gave was sent: session.release(), once
    cdef int let_go(self) except -1
    # So much of it, and then let_go()
    cdef int leave(self) except -1
    cdef int reset_with(self, uint32_t code) except -1     # and the exchange goes on, without being heard
    cdef int note_head(self, bint is_end) except -1    # a head of ours was written

    # ---- inside
    cdef Py_ssize_t lying(self, const char** data) noexcept
    cdef bytes coming_trailers(self)
    cdef int tell(self) except -1
    cdef Py_ssize_t waiting(self) noexcept             # content in `out`
    cdef int finish(self) except -1
    cdef int on_all_sent(self) except -1
    cdef int drop_out(self) except -1


# The RST_STREAM code that tells a peer of an exception (None: it is not needed any more)
cdef int64_t code_of(object error) except -1
