# One HTTP/2 connection without a socket, in both roles. Octets go in by feed(), octets come out into an
# Outlet, and SessionCallbacks say what happens. Content is never an object: it is shown where it
# lies, and what is not taken is kept until it is.

from libc.stdint cimport int64_t, uint32_t

from soth_mitm._dataplane.http.counters cimport Counters
from soth_mitm._dataplane.http2.flow_control cimport ReceiveWindow
from soth_mitm._dataplane.http2.frame cimport FrameHead
from soth_mitm._dataplane.http2.hpack_decoder cimport FieldList, HpackDecoder
from soth_mitm._dataplane.http2.hpack_encoder cimport HpackEncoder
from soth_mitm._dataplane.http2.limits cimport Http2Limits, LimitCounters
from soth_mitm._dataplane.http2.octets cimport Octets
from soth_mitm._dataplane.http2.session_stream cimport SessionStream, WriteRing
from soth_mitm._dataplane.http2.settings cimport Settings
from soth_mitm._dataplane.http2.stream_state cimport ClosedStreams
from soth_mitm._dataplane.memory.buffer cimport Arena
from soth_mitm._dataplane.memory.view cimport View
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits


cdef enum:
    CONNECTION_WINDOW = 1073741824
    QUANTUM = 16384            # octets of content that a stream writes in its turn
    OUTLET_FULL = 65536        # unsent octets from which on no content is added
    OUTLET_MOST = 1048576      # unsent octets from which on no stream is opened, whoever would open it
    HEADS_MOST = 2097152       # octets of heads that came on open streams, from which on no more of them are taken
    SHORT_WINDOW = 16384       # of a stream, on a connection that begins while half of the budget is used
    WORK_AT_ONCE = 1000        # of one call, in frames that ask for nothing; others weigh more:
    STREAM_WORK = 25           # a stream that opens
    HEAD_WORK = 64             # octets of a head that weigh as much as a frame; and each window that SETTINGS move
    EARLY_STREAMS = 100        # that we open before the peer's SETTINGS came
    EXPECTED_AT_ONCE = 1048576     # what the window of a stream grows to for content that is announced


# Where octets go
cdef class Outlet:
    cdef int send(self, const char* data, Py_ssize_t length) except -1     # all of it
    cdef Py_ssize_t unsent(self) noexcept      # octets that the system has not taken
    # A frame begins here that its stream may still add to
    cdef int mark(self) except -1
    # The head of the frame that was marked last, where it can still be changed; else NULL
    cdef char* marked(self) noexcept


# What happens on a connection. Each may call the session, but not feed it; a stream may be closed when it
# returns. What a stream's owner ended or released is told no more, and nothing is after on_failed().
cdef class SessionCallbacks:
    # the peer's SETTINGS came
    cdef int on_ready(self) except -1
    # a message begins; interim heads too. `is_end`: on_stream_end() follows
    cdef int on_stream_head(self, SessionStream stream, Head head, bint https, bint is_end) except -1
    # content; returns how much of it was taken. The rest is shown by Session.content()
    cdef Py_ssize_t on_stream_data(self, SessionStream stream, const char* data, Py_ssize_t length) except -1
    cdef int on_stream_trailers(self, SessionStream stream, bytes lines) except -1
    # the peer's message is complete, and all of its content was taken
    cdef int on_stream_end(self, SessionStream stream) except -1
    # the stream is over, by the peer or, if not `by_peer`, by a fault of the peer. What came before can
    # still be taken; if that was the whole message (`has_ended`), on_stream_end() follows then
    cdef int on_stream_reset(self, SessionStream stream, uint32_t code, bint by_peer) except -1
    # data() takes more: what the stream has is written before this returns
    cdef int on_stream_writable(self, SessionStream stream) except -1
    # the peer wants no new streams. Those of ours that it did not process have been reset
    cdef int on_going_away(self, uint32_t last, uint32_t code) except -1
    # the connection is to be closed when what was written has left
    cdef int on_failed(self, uint32_t code, str text) except -1


# What a message needs while it is read or written: one for all sessions of a loop
cdef class HeadMemory:
    cdef FieldList fields
    cdef Octets block
    cdef Octets scratch


cdef class Session:
    cdef readonly bint is_server
    cdef Arena arena
    cdef HeadMemory memory
    cdef Http2Limits limits
    cdef LimitCounters counters
    cdef Counters totals               # of all connections
    cdef Outlet outlet
    cdef SessionCallbacks callbacks
    cdef bint offers_connect           # extended CONNECT (RFC 8441)
    cdef public double now             # set by whoever calls, before it calls
    cdef readonly double round_trip    # seconds, 0: not known
    cdef readonly bint has_failed
    cdef readonly bint has_more        # feed() left octets that it could have read, for the loop's sake
    cdef readonly int limit_hit        # the Limit that ended it, LIMIT_OK: none

    # settings
    cdef Settings ours
    cdef Settings peers
    cdef readonly bint is_ready        # the peer's came
    cdef readonly bint is_acknowledged     # ours were
    cdef double settings_sent_at

    # streams
    cdef list lost                     # those that were open when the connection failed or was lost
    cdef dict streams                  # those that are not closed, by number
    cdef ClosedStreams closed
    cdef readonly int active           # of the peer, that are not closed or not released
    cdef uint32_t last_peer            # the highest number that the peer has used
    cdef uint32_t next_own             # of a stream of ours
    cdef Py_ssize_t heads              # octets of the heads that came: of streams that the peer has open, or that we have not left
    cdef int work                      # since the call of feed: what is left is for another turn of the loop
    cdef int opened_now                # by the peer, since the call of feed
    cdef int refused_now               # of what was here when it was called first
    cdef int lingering                 # reset by us; the peer may still count them
    cdef int lingering_next            # the same, since the PING that finds out was sent
    cdef readonly uint32_t peer_last   # of its GOAWAY
    cdef readonly bint peer_goes       # a GOAWAY came
    cdef readonly uint32_t peer_code   # of the last one
    cdef readonly bint is_draining     # we want no new streams
    cdef bint has_left                 # our last GOAWAY was sent: streams above goaway_last are not seen
    cdef uint32_t goaway_last

    # PINGs of ours: numbered, and one answer answers all before it
    cdef uint32_t ping_sent
    cdef uint32_t ping_answered
    cdef double ping_at
    cdef double ping_since             # the first that has no answer
    cdef uint32_t ping_drain           # the number that ends the drain's wait, 0: none
    cdef uint32_t ping_linger          # that ends the wait of `lingering`
    cdef double linger_at

    # octets in
    cdef int preface_left
    cdef double incomplete_since       # a frame or block is not whole; negative: there is none
    cdef ReceiveWindow window
    cdef int64_t promised              # of all streams
    cdef SessionStream data_stream     # whose DATA frame is being read; None: its content is dropped
    cdef uint32_t data_left            # of its content
    cdef uint32_t skip_left            # octets to be dropped: padding
    cdef bint data_ends
    cdef uint32_t block_stream         # whose header block is not complete; 0: none
    cdef bint block_ends
    cdef Octets block
    cdef HpackDecoder decoder

    # octets out
    cdef HpackEncoder encoder
    cdef int64_t send_left
    cdef int64_t written
    cdef int64_t reply_at              # `written` behind the last reply
    cdef WriteRing ring
    cdef SessionStream turn            # whose turn it is
    cdef Py_ssize_t quantum
    # The frame that was written last, while its stream may add to it: content to DATA, and END_STREAM
    cdef SessionStream open_stream     # None: there is none
    cdef Py_ssize_t open_length        # of its content; FRAME_SIZE of a head, which takes none

    # ---- for the owner
    # The preface, SETTINGS and the connection's window, in one write
    cdef int begin(self) except -1
    # Read what came: the octets that are used up. The rest is to be shown again, with what follows it
    cdef Py_ssize_t feed(self, const char* data, Py_ssize_t length) except -1
    # Call it when the outlet has room again: streams write in turn
    cdef int serve(self) except -1
    # How many streams of ours may be opened now
    cdef int capacity(self) noexcept
    # A request; None: there is no capacity
    cdef SessionStream open(self, Head head, HeadEdits edits, bint https, View authority, View protocol, bint is_end)
    # A response's head, or an interim one
    cdef int head(self, SessionStream stream, Head head, HeadEdits edits, bint is_end) except -1
    # The same of our own: (bytes, bytes) pairs; a `length` of -1 is not announced
    cdef int own_head(self, SessionStream stream, int status, object headers, Py_ssize_t length, bint is_end) except -1
    # Content: how much of it was taken. on_stream_writable() tells when the rest may follow. END_STREAM leaves
    # with the last octet, or alone when `length` is 0
    cdef Py_ssize_t data(self, SessionStream stream, const char* data, Py_ssize_t length, bint is_end) except -1
    # How much of a stream's content data() would take now
    cdef Py_ssize_t room(self, SessionStream stream) noexcept
    # on_stream_writable() is wanted, as after data() that did not take all
    cdef int await_room(self, SessionStream stream) except -1
    # Field lines, each with its CRLF, behind all content; they end the stream
    cdef int trailers(self, SessionStream stream, bytes lines) except -1
    # End the stream now. Nothing that waits is sent; nothing is told
    cdef int reset(self, SessionStream stream, uint32_t code) except -1
    # The owner has done with a stream: its slot is free when it is closed
    cdef int release(self, SessionStream stream) except -1
    # The last octet of its message is being delivered: the end follows, and no reset is needed
    cdef bint is_ending(self, SessionStream stream) noexcept
    # What is kept of a stream's content; False: nothing
    cdef bint content(self, SessionStream stream, View* view) noexcept
    # `length` octets of it were taken
    cdef int consume(self, SessionStream stream, Py_ssize_t length) except -1
    cdef int ping(self) except -1
    cdef double unanswered_for(self) noexcept          # seconds since a PING of ours that has no answer; 0: none
    # No new streams: a GOAWAY with what has been seen so far, and none will be seen any more
    cdef int goaway(self, uint32_t code) except -1
    # The polite way: new streams are still taken until the peer can know. finish_drain() ends that, and is
    # called by the session when the peer has answered
    cdef int drain(self) except -1
    cdef int finish_drain(self) except -1
    # There is no connection any more: nothing is written, and nothing is told. The streams are in `lost`, as after on_failed()
    cdef int lose(self) except -1
    # For deadlines: a header block or frame that does not end, SETTINGS, streams that do not move
    cdef int check_head(self) except -1
    cdef int check_settings(self, double seconds) except -1
    cdef int check_stalls(self) except -1

    # ---- inside
    cdef int fail(self, uint32_t code, str text) except -1
    cdef int fail_limit(self, int limit) except -1
    cdef int glitch(self) except -1
    cdef char* open_frame(self, SessionStream stream) noexcept
    cdef int write_frame(self, int kind, int flags, uint32_t stream, const char* payload, uint32_t length) except -1
    cdef int reply(self, int kind, int flags, uint32_t stream, const char* payload, uint32_t length) except -1
    cdef int write_window(self, uint32_t stream, uint32_t increment) except -1
    cdef int write_goaway(self, uint32_t last, uint32_t code) except -1
    cdef int write_block(self, SessionStream stream, bint is_end) except -1
    cdef int write_reset(self, uint32_t stream, uint32_t code) except -1
    cdef int reply_reset(self, uint32_t stream, uint32_t code) except -1

    cdef Py_ssize_t read_preface(self, const char* data, Py_ssize_t length) except -1
    cdef Py_ssize_t read_frame(self, const char* data, Py_ssize_t length) except -1
    cdef int dispatch(self, FrameHead* head, const char* payload) except -1
    cdef int begin_data(self, FrameHead* head, const char* payload) except -1
    cdef int deliver(self, SessionStream stream, const char* data, Py_ssize_t length) except -1
    cdef int end_data(self) except -1
    cdef int handle_headers(self, FrameHead* head, const char* payload) except -1
    cdef int handle_continuation(self, FrameHead* head, const char* payload) except -1
    cdef int handle_block(self, uint32_t number, const char* block, Py_ssize_t length, bint is_end) except -1
    cdef SessionStream open_for_peer(self, uint32_t number)
    cdef int add_stream(self, SessionStream stream) except -1
    cdef int handle_message(self, SessionStream stream, bint is_end) except -1
    cdef int handle_trailers(self, SessionStream stream, bint is_end) except -1
    cdef int answer_too_large(self, SessionStream stream, bint is_end) except -1
    cdef int handle_settings(self, FrameHead* head, const char* payload) except -1
    cdef int handle_ping(self, FrameHead* head, const char* payload) except -1
    cdef int handle_goaway(self, const char* payload) except -1
    cdef int handle_window(self, FrameHead* head, const char* payload) except -1
    cdef int handle_reset(self, FrameHead* head, const char* payload) except -1

    cdef int find_state(self, uint32_t number) noexcept        # of a stream that is in no table
    cdef int refuse_event(self, uint32_t number, int event) except -1
    cdef int stream_error(self, SessionStream stream, uint32_t code) except -1
    cdef int end_remote(self, SessionStream stream) except -1
    cdef int deliver_end(self, SessionStream stream) except -1
    cdef int end_local(self, SessionStream stream) except -1
    cdef int closed_now(self, SessionStream stream) except -1
    cdef int settle(self, SessionStream stream) except -1
    cdef int credit(self, SessionStream stream, uint32_t length) except -1
    cdef int wait_for(self, SessionStream stream, int wait) except -1
    cdef int send_ping(self) except -1
    cdef int linger_over(self, bint may_ping) except -1
    cdef int write_message(self, SessionStream stream, bint is_end, bint is_final) except -1
    cdef int promise(self, SessionStream stream, int64_t count) except -1
    cdef int end_promise(self, SessionStream stream) except -1
