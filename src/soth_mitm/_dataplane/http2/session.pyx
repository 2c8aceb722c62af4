"""One HTTP/2 connection without a socket (RFC 9113), as server and as client.

Frames are read where they lie. DATA is shown in the pieces in which it comes, a frame need not be whole;
of every other frame all octets are waited for, 16393 at most. Nothing here waits for a peer: what it
should do is said in SETTINGS and windows, and what it does not do is found out by check_head(),
check_settings() and check_stalls(), which the owner's deadlines call.

The connection's window is large and is filled up on receipt, whatever becomes of a stream: it never is
what holds a stream up. A stream's window follows what its owner took.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcmp

from soth_mitm._dataplane.http.counters cimport Counters, code_place
from soth_mitm._dataplane.http2.flow_control cimport (
    expect_octets, open_window, receive_octets, shift_send_window, shift_window, take_octets, widen_send_window,
    window_fault_code, window_fault_text,
)
from soth_mitm._dataplane.http2.frame cimport (
    CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM, FLAG_ACK, FLAG_END_HEADERS, FLAG_END_STREAM, FLOW_CONTROL_ERROR,
    FRAME_CONTINUATION, FRAME_DATA, FRAME_GOAWAY, FRAME_HEADER, FRAME_HEADERS, FRAME_PING, FRAME_PRIORITY_UPDATE,
    FRAME_PUSH_PROMISE, FRAME_RST_STREAM, FRAME_SETTINGS, FRAME_SIZE, FRAME_WINDOW_UPDATE, MAX_STREAM, NO_ERROR,
    PREFACE, PREFACE_LENGTH, PROTOCOL_ERROR, REFUSED_STREAM, SETTINGS_TIMEOUT, STREAM_CLOSED, FrameHead, frame_content,
    frame_fault_code, frame_fault_text, frame_head_fault, frame_prefix, read_32, read_frame_head, write_32,
    write_frame_head,
)
from soth_mitm._dataplane.http2.hpack_decoder cimport FieldList, HpackDecoder, hpack_error_text
from soth_mitm._dataplane.http2.hpack_encoder cimport HpackEncoder
from soth_mitm._dataplane.http2.limits cimport (
    LIMIT_HEAD, LIMIT_HEAD_TIME, LIMIT_LIST, LIMIT_OK, LIMIT_POLITE, LIMIT_REPLIES, LIMIT_SETTINGS, LIMIT_STALL,
    LIMIT_STREAMS, LIST_FACTOR, MAX_FIELDS, MAX_INTERIM, STALL_OCTETS, Http2Limits, LimitCounters, limit_text,
)
from soth_mitm._dataplane.http2.message cimport (
    MESSAGE_TOO_MANY, RequestFacts, read_request, read_response, read_trailers, write_own_response, write_request,
    write_response, write_trailers,
)
from soth_mitm._dataplane.http2.octets cimport Octets
from soth_mitm._dataplane.http2.session_stream cimport (
    WAIT_NOTHING, WAIT_TURN, WAIT_WINDOW, SessionStream, WriteRing,
)
from soth_mitm._dataplane.http2.settings cimport (
    DEFAULT_WINDOW, default_settings, read_settings, settings_fault_code, settings_fault_text,
    write_settings,
)
from soth_mitm._dataplane.http2.stream_state cimport (
    ANSWER_CLOSED, ANSWER_CLOSED_FATAL, ANSWER_PROTOCOL, EVENT_RECEIVE_DATA, EVENT_RECEIVE_END,
    EVENT_RECEIVE_HEADERS, EVENT_RECEIVE_RESET, EVENT_SEND_DATA, EVENT_SEND_END, EVENT_SEND_HEADERS, EVENT_SEND_RESET,
    STREAM_IDLE, STREAM_REMOTE_ENDED, STREAM_WE_RESET, change_state, is_closed,
    may_receive, may_send, next_state, recall_closed, remember_closed,
)
from soth_mitm._dataplane.memory.buffer cimport Arena, Buffer
from soth_mitm._dataplane.memory.view cimport View, view_bytes, view_of
from soth_mitm._dataplane.wire.head cimport METHOD_HEAD, Head
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits

cdef enum:
    # what find_state() says besides the states
    STATE_FORGOTTEN = -1       # it was closed so long ago that nothing more is known
    STATE_SKIPPED = -2         # a higher number was opened, and this one never

    FLAGS_AT = 4               # in the head of a frame
    PING_LENGTH = 8
    LINGER_SECONDS = 1         # that a stream which we reset is taken to be open at the peer, at most

cdef const char* PING_MARK = b"soth"


# not final: an endpoint's outlet is one
cdef class Outlet:
    """Where the octets of a session go."""

    cdef int send(self, const char* data, Py_ssize_t length) except -1:
        return 0

    cdef Py_ssize_t unsent(self) noexcept:
        return 0

    cdef int mark(self) except -1:
        return 0

    cdef char* marked(self) noexcept:
        return NULL


# not final: each side of the proxy has its own
cdef class SessionCallbacks:
    """What is told of a connection."""

    cdef int on_ready(self) except -1:
        return 0

    cdef int on_stream_head(self, SessionStream stream, Head head, bint https, bint is_end) except -1:
        return 0

    cdef Py_ssize_t on_stream_data(self, SessionStream stream, const char* data, Py_ssize_t length) except -1:
        return length

    cdef int on_stream_trailers(self, SessionStream stream, bytes lines) except -1:
        return 0

    cdef int on_stream_end(self, SessionStream stream) except -1:
        return 0

    cdef int on_stream_reset(self, SessionStream stream, uint32_t code, bint by_peer) except -1:
        return 0

    cdef int on_stream_writable(self, SessionStream stream) except -1:
        return 0

    cdef int on_going_away(self, uint32_t last, uint32_t code) except -1:
        return 0

    cdef int on_failed(self, uint32_t code, str text) except -1:
        return 0


@cython.final
cdef class HeadMemory:
    """What one message needs while it is read or written."""

    def __cinit__(self):
        self.fields = FieldList()
        self.block = Octets()
        self.scratch = Octets()


@cython.final
cdef class Session:
    """One HTTP/2 connection."""

    def __cinit__(self, bint is_server, Arena arena not None, HeadMemory memory not None, Http2Limits limits not None,
                  Outlet outlet not None, SessionCallbacks callbacks not None, Counters totals not None,
                  bint offers_connect=False):
        self.is_server = is_server
        self.arena = arena
        self.memory = memory
        self.limits = limits
        self.counters = LimitCounters(limits)
        self.totals = totals
        self.outlet = outlet
        self.callbacks = callbacks
        self.offers_connect = offers_connect
        self.streams = {}
        self.ring = WriteRing()
        self.decoder = HpackDecoder()
        self.encoder = HpackEncoder()
        self.next_own = 2 if is_server else 1
        self.preface_left = PREFACE_LENGTH if is_server else 0
        self.incomplete_since = -1
        default_settings(&self.peers)
        default_settings(&self.ours)
        self.ours.window = limits.initial_window
        if arena.budget.above_read_mark():
            # what the peer may have us hold is counted when it came, and then it is late
            self.ours.window = min(self.ours.window, <uint32_t>SHORT_WINDOW)
        self.ours.list_size = limits.list_size
        self.ours.no_priorities = True
        if is_server:
            self.ours.max_streams = <uint32_t>limits.max_streams
            self.ours.connect_protocol = offers_connect
        else:
            self.ours.push = False
        open_window(&self.window, CONNECTION_WINDOW)
        self.send_left = DEFAULT_WINDOW

    # ---- the owner's part ------------------------------------------------------------------------------------

    cdef int begin(self) except -1:
        cdef Octets out = self.memory.block
        cdef char* at
        cdef Py_ssize_t settings
        out.clear()
        if not self.is_server:
            out.append(PREFACE, PREFACE_LENGTH)
        out.reserve(FRAME_HEADER)
        settings = out.size
        out.size += FRAME_HEADER
        write_settings(out, &self.ours, self.is_server)
        write_frame_head(out.data + settings, <uint32_t>(out.size - settings - FRAME_HEADER), FRAME_SETTINGS, 0, 0)
        out.reserve(FRAME_HEADER + 4)
        at = out.data + out.size
        write_frame_head(at, 4, FRAME_WINDOW_UPDATE, 0, 0)
        write_32(at + FRAME_HEADER, CONNECTION_WINDOW - DEFAULT_WINDOW)
        out.size += FRAME_HEADER + 4
        self.settings_sent_at = self.now
        self.written += out.size
        return self.outlet.send(out.data, out.size)

    cdef Py_ssize_t feed(self, const char* data, Py_ssize_t length) except -1:
        cdef Py_ssize_t at = 0, count
        self.work = self.opened_now = 0
        if not self.has_more:
            self.refused_now = 0
        self.has_more = False
        if self.preface_left and not self.has_failed:
            at = self.read_preface(data, length)
        while at < length and not self.has_failed:
            if self.data_left:
                count = min(length - at, <Py_ssize_t>self.data_left)
                self.data_left -= <uint32_t>count
                if self.data_stream is not None:
                    self.deliver(self.data_stream, data + at, count)
                if self.data_left == 0:
                    self.end_data()
            elif self.skip_left:
                count = min(length - at, <Py_ssize_t>self.skip_left)
                self.skip_left -= <uint32_t>count
            else:
                if self.work >= WORK_AT_ONCE or self.opened_now >= self.limits.max_streams:
                    self.has_more = True
                    break
                count = self.read_frame(data + at, length - at)
                self.work += 1
                if count == 0:
                    break
            at += count
        if self.has_failed:
            return length
        if self.ring.first is not None:
            self.serve()
        if self.has_more or (at == length and self.block_stream == 0):
            self.incomplete_since = -1
        elif self.incomplete_since < 0 or (at > 0 and self.block_stream == 0):
            # another frame than the one that was incomplete before
            self.incomplete_since = self.now
        else:
            self.check_head()
        return length if self.has_failed else at

    cdef int serve(self) except -1:
        cdef SessionStream stream
        if self.turn is not None:
            # what a stream does in its turn brought us here
            return 0
        while self.ring.first is not None and self.send_left > 0 and self.outlet.unsent() < OUTLET_FULL and not self.has_failed:
            stream = self.ring.pop()
            if stream.is_released:
                continue
            self.turn = stream
            self.quantum = QUANTUM
            try:
                self.callbacks.on_stream_writable(stream)
            finally:
                self.turn = None
            if stream.wait == WAIT_NOTHING:
                stream.waits_since = -1
        return 0

    cdef int capacity(self) noexcept:
        cdef int64_t most = self.peers.max_streams if self.is_ready else EARLY_STREAMS
        if self.has_failed or self.peer_goes or self.is_draining or self.is_server or self.next_own > MAX_STREAM:
            return 0
        if self.heads > HEADS_MOST:
            # the next response would be refused
            return 0
        if self.ping_linger and self.now - self.linger_at > LINGER_SECONDS:
            # the answer is not waited for any longer
            self.lingering = self.lingering_next
            self.lingering_next = 0
            self.ping_linger = 0
        most = min(most, <int64_t>self.limits.max_streams) - <int64_t>len(self.streams) - self.lingering - self.lingering_next
        return <int>max(most, <int64_t>0)

    cdef SessionStream open(self, Head head, HeadEdits edits, bint https, View authority, View protocol, bint is_end):
        cdef SessionStream stream
        if self.capacity() == 0:
            return None
        # the number is taken in the moment in which the block is made: they leave in one order
        self.memory.block.clear()
        write_request(self.encoder, self.memory.block, self.memory.scratch, head, edits, https, authority, protocol)
        stream = SessionStream.__new__(SessionStream)
        stream.id = self.next_own
        self.next_own += 2
        stream.is_known = True
        stream.has_no_content = head.method == METHOD_HEAD
        open_window(&stream.window, self.ours.window if self.is_acknowledged else DEFAULT_WINDOW)
        stream.send_left = self.peers.window
        self.add_stream(stream)
        self.write_message(stream, is_end, True)
        return stream

    cdef int head(self, SessionStream stream, Head head, HeadEdits edits, bint is_end) except -1:
        if self.has_failed or not may_send(stream.state):
            return 0
        self.memory.block.clear()
        write_response(self.encoder, self.memory.block, self.memory.scratch, head, edits)
        return self.write_message(stream, is_end, head.status >= 200)

    cdef int own_head(self, SessionStream stream, int status, object headers, Py_ssize_t length, bint is_end) except -1:
        if self.has_failed or not may_send(stream.state):
            return 0
        self.memory.block.clear()
        write_own_response(self.encoder, self.memory.block, self.memory.scratch, status, headers, length)
        return self.write_message(stream, is_end, status >= 200)

    cdef Py_ssize_t data(self, SessionStream stream, const char* data, Py_ssize_t length, bint is_end) except -1:
        cdef Py_ssize_t taken = 0, count
        cdef char frame[FRAME_HEADER]
        cdef char* opened
        cdef bint is_last
        if self.has_failed or not may_send(stream.state) or not stream.sent_head:
            return 0
        if length == 0:
            if is_end:
                change_state(&stream.state, EVENT_SEND_DATA)
                opened = self.open_frame(stream)
                if opened == NULL:
                    self.write_frame(FRAME_DATA, FLAG_END_STREAM, stream.id, NULL, 0)
                else:
                    opened[FLAGS_AT] |= FLAG_END_STREAM
                    self.open_stream = None
                self.end_local(stream)
            return 0
        if stream.wait != WAIT_NOTHING:
            return 0
        if self.turn is not stream:
            if self.ring.first is not None or self.turn is not None:
                self.wait_for(stream, WAIT_TURN)
                return 0
            self.quantum = OUTLET_FULL
        while taken < length:
            if stream.send_left <= 0:
                self.wait_for(stream, WAIT_WINDOW)
                return taken
            if self.send_left <= 0 or self.quantum <= 0 or self.outlet.unsent() >= OUTLET_FULL:
                self.wait_for(stream, WAIT_TURN)
                return taken
            opened = self.open_frame(stream)
            if opened != NULL and self.open_length == FRAME_SIZE:
                opened = NULL
            count = FRAME_SIZE if opened == NULL else FRAME_SIZE - self.open_length
            count = min(length - taken, count, self.quantum)
            count = min(<int64_t>count, stream.send_left, self.send_left)
            is_last = is_end and taken + count == length
            change_state(&stream.state, EVENT_SEND_DATA)
            stream.send_left -= count
            self.send_left -= count
            stream.moved += count
            self.quantum -= count
            self.written += count
            self.counters.note_octets(count, count)
            if opened == NULL:
                self.written += FRAME_HEADER
                self.counters.note_octets(FRAME_HEADER, 0)
                self.outlet.mark()
                write_frame_head(frame, <uint32_t>count, FRAME_DATA, FLAG_END_STREAM if is_last else 0, stream.id)
                self.outlet.send(frame, FRAME_HEADER)
                self.open_stream = stream
                self.open_length = count
            else:
                # what lies together leaves as one frame
                self.open_length += count
                write_frame_head(opened, <uint32_t>self.open_length, FRAME_DATA, FLAG_END_STREAM if is_last else 0, stream.id)
            self.outlet.send(data + taken, count)
            taken += count
            if is_last:
                self.open_stream = None
                self.end_local(stream)
        stream.waits_since = -1
        return taken

    cdef char* open_frame(self, SessionStream stream) noexcept:
        return self.outlet.marked() if self.open_stream is stream else NULL

    cdef Py_ssize_t room(self, SessionStream stream) noexcept:
        cdef int64_t most = OUTLET_FULL
        if self.has_failed or not may_send(stream.state) or stream.wait != WAIT_NOTHING:
            return 0
        if self.turn is stream:
            most = self.quantum
        elif self.ring.first is not None or self.turn is not None:
            return 0
        most = min(most, stream.send_left, self.send_left)
        return <Py_ssize_t>max(min(most, <int64_t>(OUTLET_FULL - self.outlet.unsent())), <int64_t>0)

    cdef int await_room(self, SessionStream stream) except -1:
        if self.has_failed or not may_send(stream.state) or stream.wait != WAIT_NOTHING:
            return 0
        return self.wait_for(stream, WAIT_WINDOW if stream.send_left <= 0 else WAIT_TURN)

    cdef int trailers(self, SessionStream stream, bytes lines) except -1:
        if self.has_failed or not may_send(stream.state) or not stream.sent_head:
            return 0
        self.memory.block.clear()
        write_trailers(self.encoder, self.memory.block, self.memory.scratch, lines)
        if self.memory.block.size == 0:
            # none of them may leave
            self.data(stream, NULL, 0, True)
            return 0
        return self.write_message(stream, True, True)

    cdef int reset(self, SessionStream stream, uint32_t code) except -1:
        cdef bint is_own = not self.is_server and stream.state != STREAM_REMOTE_ENDED
        if self.has_failed or is_closed(stream.state):
            return 0
        change_state(&stream.state, EVENT_SEND_RESET)
        self.write_reset(stream.id, code)
        self.closed_now(stream)
        if is_own:
            # the peer counts the stream until it has read that
            self.lingering_next += 1
            if self.ping_linger == 0:
                self.linger_over(True)
        return 0

    cdef int release(self, SessionStream stream) except -1:
        stream.is_released = True
        stream.owner = None
        if not self.is_server:
            self.heads, stream.head_size = self.heads - stream.head_size, 0
        if stream.kept is not None:
            self.credit(stream, <uint32_t>stream.kept.size())
            stream.kept.drop()
            stream.end_waits = False
        return self.settle(stream)

    cdef bint is_ending(self, SessionStream stream) noexcept:
        return self.data_stream is stream and self.data_ends and self.data_left == 0

    cdef bint content(self, SessionStream stream, View* view) noexcept:
        if stream.kept is None or stream.kept.size() == 0:
            return False
        view[0] = view_of(stream.kept.data(), stream.kept.size())
        return True

    cdef int consume(self, SessionStream stream, Py_ssize_t length) except -1:
        stream.kept.consume(length)
        self.credit(stream, <uint32_t>length)
        if stream.end_waits and stream.kept.size() == 0:
            stream.end_waits = False
            self.deliver_end(stream)
        return 0

    cdef int ping(self) except -1:
        return self.send_ping()

    cdef double unanswered_for(self) noexcept:
        return self.now - self.ping_since if self.ping_sent != self.ping_answered else 0

    cdef int goaway(self, uint32_t code) except -1:
        if self.has_failed or self.has_left:
            return 0
        if not self.is_draining:
            self.totals.http2_idle_ends += 1
        self.is_draining = self.has_left = True
        self.goaway_last = self.last_peer
        return self.write_goaway(self.last_peer, code)

    cdef int drain(self) except -1:
        if self.has_failed or self.is_draining:
            return 0
        self.is_draining = True
        self.totals.http2_drains += 1
        if not self.is_server:
            # nothing of the peer's can be on its way
            return self.goaway(NO_ERROR)
        self.write_goaway(MAX_STREAM, NO_ERROR)
        self.send_ping()
        self.ping_drain = self.ping_sent
        return 0

    cdef int finish_drain(self) except -1:
        self.ping_drain = 0
        return self.goaway(NO_ERROR)

    cdef int check_head(self) except -1:
        if self.incomplete_since >= 0 and self.now - self.incomplete_since > self.limits.head_seconds:
            return self.fail_limit(LIMIT_HEAD_TIME)
        return 0

    cdef int check_settings(self, double seconds) except -1:
        if not self.is_acknowledged and self.now - self.settings_sent_at > seconds:
            return self.fail_limit(LIMIT_SETTINGS)
        return 0

    cdef int check_stalls(self) except -1:
        cdef SessionStream stream
        for stream in list(self.streams.values()):
            if self.has_failed or stream.wait == WAIT_NOTHING or self.now - stream.waits_since < self.limits.stall_seconds:
                continue
            if stream.moved >= STALL_OCTETS:
                stream.moved = 0
                stream.waits_since = self.now
            elif stream.wait == WAIT_TURN:
                # neither the connection's window nor the socket has let anything through
                return self.fail_limit(LIMIT_STALL)
            else:
                self.totals.http2_stalled_streams += 1
                self.reset(stream, CANCEL)
                if not stream.is_released:
                    self.callbacks.on_stream_reset(stream, CANCEL, False)
        return 0

    # ---- octets out ------------------------------------------------------------------------------------------

    cdef int fail(self, uint32_t code, str text) except -1:
        if self.has_failed:
            return 0
        if self.limit_hit:
            self.totals.goaways_of_limits[self.limit_hit] += 1
        else:
            self.totals.goaways_sent[code_place(code)] += 1
        if self.limit_hit != LIMIT_REPLIES:
            self.write_goaway(self.last_peer, code)
        self.lose()
        return self.callbacks.on_failed(code, text)

    cdef int lose(self) except -1:
        if self.has_failed:
            return 0
        self.has_failed = True
        self.arena.budget.promise(-self.promised)
        self.promised = 0
        self.data_stream = self.open_stream = None
        self.lost = list(self.streams.values())
        self.totals.http2_streams -= len(self.lost)
        self.streams.clear()
        while self.ring.pop() is not None:
            pass
        if self.block is not None:
            self.block.drop()
        return 0

    cdef int fail_limit(self, int limit) except -1:
        self.limit_hit = limit
        return self.fail(SETTINGS_TIMEOUT if limit == LIMIT_SETTINGS else ENHANCE_YOUR_CALM, limit_text(limit))

    cdef int glitch(self) except -1:
        cdef int limit = self.counters.note_glitch(self.now)
        self.totals.http2_glitches += 1
        if limit == LIMIT_POLITE:
            return self.drain()
        return self.fail_limit(limit) if limit else 0

    cdef int write_frame(self, int kind, int flags, uint32_t stream, const char* payload, uint32_t length) except -1:
        cdef char frame[FRAME_HEADER]
        self.open_stream = None
        write_frame_head(frame, length, kind, flags, stream)
        self.written += FRAME_HEADER + length
        self.outlet.send(frame, FRAME_HEADER)
        return self.outlet.send(payload, length) if length else 0

    cdef int reply(self, int kind, int flags, uint32_t stream, const char* payload, uint32_t length) except -1:
        """Write what the peer made us write, unless it has left too much of that unread."""
        cdef int limit = self.counters.note_reply(self.written - self.outlet.unsent() < self.reply_at)
        if limit:
            return self.fail_limit(limit)
        self.write_frame(kind, flags, stream, payload, length)
        self.reply_at = self.written
        return 0

    cdef int reply_reset(self, uint32_t stream, uint32_t code) except -1:
        cdef char payload[4]
        write_32(payload, code)
        self.reply(FRAME_RST_STREAM, 0, stream, payload, 4)
        if not self.has_failed:
            self.totals.resets_sent[code_place(code)] += 1
        return 0

    cdef int write_window(self, uint32_t stream, uint32_t increment) except -1:
        cdef char payload[4]
        write_32(payload, increment)
        return self.write_frame(FRAME_WINDOW_UPDATE, 0, stream, payload, 4)

    cdef int write_reset(self, uint32_t stream, uint32_t code) except -1:
        cdef char payload[4]
        write_32(payload, code)
        self.totals.resets_sent[code_place(code)] += 1
        return self.write_frame(FRAME_RST_STREAM, 0, stream, payload, 4)

    cdef int write_goaway(self, uint32_t last, uint32_t code) except -1:
        cdef char payload[8]
        write_32(payload, last)
        write_32(payload + 4, code)
        return self.write_frame(FRAME_GOAWAY, 0, 0, payload, 8)

    cdef int write_message(self, SessionStream stream, bint is_end, bint is_final) except -1:
        change_state(&stream.state, EVENT_SEND_HEADERS)
        stream.sent_head = stream.sent_head or is_final
        self.write_block(stream, is_end)
        return self.end_local(stream) if is_end else 0

    cdef int write_block(self, SessionStream stream, bint is_end) except -1:
        """Write the block that was made as one HEADERS frame and as many CONTINUATION frames as it needs."""
        cdef Octets block = self.memory.block
        cdef Py_ssize_t at = 0, count
        cdef int kind = FRAME_HEADERS, flags = FLAG_END_STREAM if is_end else 0
        while True:
            count = min(block.size - at, <Py_ssize_t>FRAME_SIZE)
            if at + count == block.size:
                flags |= FLAG_END_HEADERS
            if at == 0:
                self.outlet.mark()
            self.write_frame(kind, flags, stream.id, block.data + at, <uint32_t>count)
            self.counters.note_octets(FRAME_HEADER + count, count)
            at += count
            if at == block.size:
                if kind == FRAME_HEADERS and stream.sent_head:
                    # END_STREAM may still be set where no content follows
                    self.open_stream = stream
                    self.open_length = FRAME_SIZE
                return 0
            kind = FRAME_CONTINUATION
            flags = 0

    cdef int send_ping(self) except -1:
        cdef char payload[PING_LENGTH]
        if self.has_failed:
            return 0
        if self.ping_sent == self.ping_answered:
            self.ping_since = self.now
        self.ping_sent += 1
        self.ping_at = self.now
        write_32(payload, read_32(PING_MARK))
        write_32(payload + 4, self.ping_sent)
        return self.write_frame(FRAME_PING, 0, 0, payload, PING_LENGTH)

    cdef int linger_over(self, bint may_ping) except -1:
        """The streams that lingered are free; ask about those that were reset since."""
        self.lingering = self.lingering_next
        self.lingering_next = 0
        self.ping_linger = 0
        if self.lingering and may_ping:
            self.send_ping()
            self.ping_linger = self.ping_sent
            self.linger_at = self.now
        return 0

    # ---- octets in -------------------------------------------------------------------------------------------

    cdef Py_ssize_t read_preface(self, const char* data, Py_ssize_t length) except -1:
        cdef Py_ssize_t count = min(length, <Py_ssize_t>self.preface_left)
        if memcmp(data, PREFACE + PREFACE_LENGTH - self.preface_left, count) != 0:
            self.fail(PROTOCOL_ERROR, "the connection does not begin with the preface of HTTP/2")
            return length
        self.preface_left -= <int>count
        return count

    cdef Py_ssize_t read_frame(self, const char* data, Py_ssize_t length) except -1:
        """Read one frame, of DATA its beginning: the octets that are used up, 0 when too few are there."""
        cdef FrameHead head
        cdef uint32_t needed
        cdef int fault
        if length < FRAME_HEADER:
            return 0
        head = read_frame_head(data)
        fault = frame_head_fault(&head)
        if fault:
            self.fail(frame_fault_code(fault), frame_fault_text(fault, &head))
            return length
        if not self.is_ready and (head.kind != FRAME_SETTINGS or head.flags & FLAG_ACK):
            self.fail(PROTOCOL_ERROR, "the first frame is not SETTINGS")
            return length
        if self.block_stream and (head.kind != FRAME_CONTINUATION or head.stream != self.block_stream):
            self.fail(PROTOCOL_ERROR, "a frame stands between those of a header block")
            return length
        needed = head.length
        if head.kind == FRAME_DATA:
            fault = frame_prefix(&head, &needed)
            if fault:
                self.fail(frame_fault_code(fault), frame_fault_text(fault, &head))
                return length
        if length < FRAME_HEADER + <Py_ssize_t>needed:
            return 0
        fault = self.counters.note_octets(
            FRAME_HEADER + head.length,
            head.length if head.kind == FRAME_DATA or head.kind == FRAME_HEADERS or head.kind == FRAME_CONTINUATION else 0)
        if fault:
            self.fail_limit(fault)
            return length
        if head.kind == FRAME_DATA:
            self.begin_data(&head, data + FRAME_HEADER)
            # what is left of the frame is read by feed()
            return FRAME_HEADER + <Py_ssize_t>head.length - self.data_left - self.skip_left
        self.dispatch(&head, data + FRAME_HEADER)
        return FRAME_HEADER + <Py_ssize_t>head.length

    cdef int dispatch(self, FrameHead* head, const char* payload) except -1:
        if head.kind == FRAME_HEADERS:
            return self.handle_headers(head, payload)
        if head.kind == FRAME_WINDOW_UPDATE:
            return self.handle_window(head, payload)
        if head.kind == FRAME_RST_STREAM:
            return self.handle_reset(head, payload)
        if head.kind == FRAME_SETTINGS:
            return self.handle_settings(head, payload)
        if head.kind == FRAME_PING:
            return self.handle_ping(head, payload)
        if head.kind == FRAME_CONTINUATION:
            return self.handle_continuation(head, payload)
        if head.kind == FRAME_GOAWAY:
            return self.handle_goaway(payload)
        if head.kind == FRAME_PUSH_PROMISE:
            return self.fail(PROTOCOL_ERROR, "the peer pushes, and was not allowed to")
        if head.kind == FRAME_PRIORITY_UPDATE and not self.is_server:
            return self.fail(PROTOCOL_ERROR, "a server sends PRIORITY_UPDATE")
        # PRIORITY, PRIORITY_UPDATE, and what is not known
        return self.glitch()

    # ---- DATA

    cdef int begin_data(self, FrameHead* head, const char* payload) except -1:
        cdef SessionStream stream
        cdef uint32_t offset = 0, length = 0, increment
        cdef int64_t slack = 0
        cdef int fault = frame_content(head, payload, &offset, &length)
        cdef bint is_end = head.flags & FLAG_END_STREAM
        # until more is known, all of it is dropped
        self.data_stream = None
        self.data_left = 0
        self.skip_left = head.length
        if fault:
            return self.fail(frame_fault_code(fault), frame_fault_text(fault, head))
        # the one place where the connection is credited: for all of a frame, whatever becomes of its stream
        fault = receive_octets(&self.window, head.length, 0)
        if fault:
            return self.fail(window_fault_code(fault), "more DATA came than the connection's window allows")
        increment = take_octets(&self.window, head.length, False, self.now, 0, 0)
        if increment:
            self.write_window(0, increment)
        stream = self.streams.get(head.stream)
        if stream is None:
            return self.refuse_event(head.stream, EVENT_RECEIVE_DATA)
        fault = change_state(&stream.state, EVENT_RECEIVE_DATA)
        if fault:
            return self.stream_error(stream, STREAM_CLOSED)
        if not stream.has_head:
            return self.stream_error(stream, PROTOCOL_ERROR)
        if not self.is_acknowledged:
            slack = max(<int64_t>self.ours.window - DEFAULT_WINDOW, <int64_t>0)
        if receive_octets(&stream.window, head.length, slack):
            return self.stream_error(stream, FLOW_CONTROL_ERROR)
        stream.content_total += length
        if stream.has_no_content:
            if length:
                return self.stream_error(stream, PROTOCOL_ERROR)
        elif stream.content_length >= 0 and (stream.content_total > stream.content_length
                                             or is_end and stream.content_total != stream.content_length):
            return self.stream_error(stream, PROTOCOL_ERROR)
        self.data_stream = stream
        self.data_left = length
        self.skip_left = head.length - offset - length
        self.data_ends = is_end
        if head.length > length:
            self.credit(stream, head.length - length)
        if length == 0:
            if not is_end:
                self.glitch()
            self.end_data()
        return 0

    cdef int deliver(self, SessionStream stream, const char* data, Py_ssize_t length) except -1:
        cdef Py_ssize_t taken = 0
        if stream.is_released:
            return self.credit(stream, <uint32_t>length)
        if stream.kept_size() == 0:
            taken = self.callbacks.on_stream_data(stream, data, length)
            if self.data_stream is not stream:
                # it was reset
                return 0
            if stream.is_released:
                taken = length
        if taken < length:
            if stream.kept is None:
                stream.kept = Buffer(self.arena)
            stream.kept.append_exact(data + taken, length - taken)
        return self.credit(stream, <uint32_t>taken) if taken else 0

    cdef int end_data(self) except -1:
        cdef SessionStream stream = self.data_stream
        self.data_stream = None
        if stream is None or not self.data_ends or self.has_failed:
            return 0
        self.end_remote(stream)
        return self.deliver_end(stream)

    # ---- HEADERS

    cdef int handle_headers(self, FrameHead* head, const char* payload) except -1:
        cdef uint32_t offset = 0, length = 0
        cdef int fault = frame_content(head, payload, &offset, &length)
        cdef bint is_end = head.flags & FLAG_END_STREAM
        if fault:
            return self.fail(frame_fault_code(fault), frame_fault_text(fault, head))
        fault = self.counters.begin_head(length, self.now)
        if fault:
            return self.fail_limit(fault)
        if head.flags & FLAG_END_HEADERS:
            return self.handle_block(head.stream, payload + offset, length, is_end)
        self.incomplete_since = self.now
        self.block_stream = head.stream
        self.block_ends = is_end
        if self.block is None:
            self.block = Octets()
        return self.block.append(payload + offset, length)

    cdef int handle_continuation(self, FrameHead* head, const char* payload) except -1:
        cdef int limit
        cdef uint32_t number = self.block_stream
        if number == 0:
            return self.fail(PROTOCOL_ERROR, "CONTINUATION goes on with nothing")
        limit = self.counters.go_on_head(head.length, self.now)
        if limit:
            return self.fail_limit(limit)
        if head.length == 0 and not head.flags & FLAG_END_HEADERS:
            return self.fail_limit(LIMIT_HEAD)
        self.block.append(payload, head.length)
        if not head.flags & FLAG_END_HEADERS:
            return 0
        self.block_stream = 0
        self.handle_block(number, self.block.data, self.block.size, self.block_ends)
        self.block.drop()
        return 0

    cdef int handle_block(self, uint32_t number, const char* block, Py_ssize_t length, bint is_end) except -1:
        cdef FieldList fields = self.memory.fields
        cdef SessionStream stream
        cdef int error
        # every block runs through the decoder, whatever becomes of its stream
        fields.clear(self.limits.list_size)
        error = self.decoder.decode(block, length, fields)
        if error:
            return self.fail(COMPRESSION_ERROR, hpack_error_text(error))
        if fields.octets > LIST_FACTOR * <Py_ssize_t>self.limits.list_size:
            return self.fail_limit(LIMIT_LIST)
        self.work += <int>(fields.octets // HEAD_WORK)
        stream = self.streams.get(number)
        if stream is None:
            stream = self.open_for_peer(number)
            if stream is None:
                return 0
        if change_state(&stream.state, EVENT_RECEIVE_HEADERS):
            return self.stream_error(stream, STREAM_CLOSED)
        if fields.is_over:
            return self.answer_too_large(stream, is_end)
        return self.handle_trailers(stream, is_end) if stream.has_head else self.handle_message(stream, is_end)

    cdef SessionStream open_for_peer(self, uint32_t number):
        """Make a stream that a request opens; None when there is to be none."""
        cdef SessionStream stream
        cdef int state = self.find_state(number)
        if state == STATE_SKIPPED or (state == STREAM_IDLE and not (self.is_server and number & 1)):
            self.fail(PROTOCOL_ERROR, "HEADERS name a stream that cannot be opened")
            return None
        if state != STREAM_IDLE:
            self.refuse_event(number, EVENT_RECEIVE_HEADERS)
            return None
        self.last_peer = number
        # heads wait for no room. A peer that does not read what ended its streams has them open
        # still, and opens no more. Nor does one whose requests are as long as HPACK makes them of
        # a few octets
        if (self.active >= self.limits.max_streams or self.outlet.unsent() > OUTLET_MOST
                or self.heads > HEADS_MOST):
            self.totals.http2_refused_streams += 1
            self.refused_now += 1
            remember_closed(&self.closed, number, STREAM_WE_RESET)
            if self.refused_now > self.limits.max_streams:
                self.fail_limit(LIMIT_STREAMS)
            else:
                self.reply_reset(number, REFUSED_STREAM)
                self.glitch()
            return None
        self.opened_now += 1
        self.work += STREAM_WORK
        self.active += 1
        stream = SessionStream.__new__(SessionStream)
        stream.id = number
        stream.is_counted = True
        open_window(&stream.window, self.ours.window if self.is_acknowledged else DEFAULT_WINDOW)
        stream.send_left = self.peers.window
        self.add_stream(stream)
        return stream

    cdef int add_stream(self, SessionStream stream) except -1:
        self.streams[stream.id] = stream
        self.totals.http2_streams += 1
        self.totals.http2_streams_total += 1
        return 0

    cdef int handle_message(self, SessionStream stream, bint is_end) except -1:
        cdef Head head = Head.__new__(Head)
        cdef RequestFacts facts
        cdef uint32_t increment
        cdef bint is_interim = False
        cdef int fault
        facts.https = True
        if self.is_server:
            fault = read_request(self.memory.fields, head, self.offers_connect, MAX_FIELDS, &facts)
            if fault == 0 and facts.protocol.len:
                stream.protocol = view_bytes(facts.protocol)
        else:
            fault = read_response(self.memory.fields, head, MAX_FIELDS)
            is_interim = fault == 0 and head.status < 200
        if fault == MESSAGE_TOO_MANY:
            return self.answer_too_large(stream, is_end)
        if fault or (is_interim and is_end):
            return self.stream_error(stream, PROTOCOL_ERROR)
        if is_interim:
            stream.interim_heads += 1
            if stream.interim_heads > MAX_INTERIM:
                return self.stream_error(stream, ENHANCE_YOUR_CALM)
            return 0 if stream.is_released else self.callbacks.on_stream_head(stream, head, True, False)
        if not self.is_server and (head.status == 204 or head.status == 304):
            stream.has_no_content = True
        if is_end and head.content_length > 0 and not stream.has_no_content:
            # its owner is not told of it
            return self.stream_error(stream, PROTOCOL_ERROR)
        if not self.is_server and self.heads > HEADS_MOST:
            # of the streams that are open already; requests are refused before that
            return self.answer_too_large(stream, is_end)
        stream.has_head = stream.is_known = True
        if not stream.is_released:
            stream.head_size = len(head.raw)
            self.heads += stream.head_size
        if not stream.has_no_content:
            stream.content_length = head.content_length
        if is_end:
            self.end_remote(stream)
        elif stream.content_length > stream.window.size:
            increment = expect_octets(&stream.window, stream.content_length, min(
                <int64_t>EXPECTED_AT_ONCE, stream.window.size + self.arena.budget.promise_room(self.promised)))
            if increment:
                self.promise(stream, increment)
                self.write_window(stream.id, increment)
        if not stream.is_released:
            self.callbacks.on_stream_head(stream, head, facts.https, is_end)
        return self.deliver_end(stream) if is_end else 0

    cdef int handle_trailers(self, SessionStream stream, bint is_end) except -1:
        cdef Octets lines = self.memory.scratch
        cdef int fault, dropped
        lines.clear()
        fault = read_trailers(self.memory.fields, self.is_server, MAX_FIELDS, lines, &dropped)
        if fault == MESSAGE_TOO_MANY:
            return self.answer_too_large(stream, is_end)
        if fault or not is_end:
            return self.stream_error(stream, PROTOCOL_ERROR)
        if stream.content_length >= 0 and stream.content_total != stream.content_length:
            return self.stream_error(stream, PROTOCOL_ERROR)
        if dropped:
            self.totals.trailers_dropped += 1
        if lines.size:
            stream.trailers_wait = PyBytes_FromStringAndSize(lines.data, lines.size)
        self.end_remote(stream)
        return self.deliver_end(stream)

    cdef int answer_too_large(self, SessionStream stream, bint is_end) except -1:
        self.totals.http2_oversized_heads += 1
        if not self.is_server or stream.has_head:
            return self.stream_error(stream, ENHANCE_YOUR_CALM)
        stream.is_released = True
        if is_end:
            self.end_remote(stream)
        self.own_head(stream, 431, (), 0, True)
        # the rest of the request is not wanted; NO_ERROR, or clients drop the answer
        self.reset(stream, NO_ERROR)
        return self.glitch()

    # ---- the others

    cdef int handle_settings(self, FrameHead* head, const char* payload) except -1:
        cdef SessionStream stream
        cdef int64_t difference = self.peers.window
        cdef int fault
        if head.flags & FLAG_ACK:
            if self.is_acknowledged:
                return self.glitch()
            self.is_acknowledged = True
            self.round_trip = self.now - self.settings_sent_at
            for stream in self.streams.values():
                shift_window(&stream.window, <int64_t>self.ours.window - DEFAULT_WINDOW)
            return 0
        fault = read_settings(&self.peers, payload, head.length, not self.is_server)
        if fault:
            return self.fail(settings_fault_code(fault), settings_fault_text(fault))
        self.encoder.set_limit(self.peers.table_least)
        self.encoder.set_limit(self.peers.table_size)
        difference = <int64_t>self.peers.window - difference
        if difference:
            self.work += <int>len(self.streams)
            for stream in self.streams.values():
                fault = shift_send_window(&stream.send_left, difference)
                if fault:
                    return self.fail(window_fault_code(fault), window_fault_text(fault))
                if stream.wait == WAIT_WINDOW and stream.send_left > 0:
                    self.ring.append(stream)
        self.reply(FRAME_SETTINGS, FLAG_ACK, 0, NULL, 0)
        if difference and self.is_ready and not self.has_failed:
            # it moves the window of every stream, and may do so in each frame
            self.glitch()
        if self.has_failed:
            return 0
        self.is_ready = True
        return self.callbacks.on_ready()

    cdef int handle_ping(self, FrameHead* head, const char* payload) except -1:
        cdef uint32_t number
        if not head.flags & FLAG_ACK:
            return self.reply(FRAME_PING, FLAG_ACK, 0, payload, PING_LENGTH)
        number = read_32(payload + 4)
        if memcmp(payload, PING_MARK, 4) != 0 or not self.ping_answered < number <= self.ping_sent:
            return self.glitch()
        self.ping_answered = number
        if number == self.ping_sent:
            self.round_trip = self.now - self.ping_at
        if self.ping_linger and number >= self.ping_linger:
            self.linger_over(True)
        if self.ping_drain and number >= self.ping_drain:
            self.finish_drain()
        return 0

    cdef int handle_goaway(self, const char* payload) except -1:
        cdef uint32_t last = read_32(payload) & MAX_STREAM
        cdef uint32_t code = read_32(payload + 4)
        cdef SessionStream stream
        # it may be told several times, and only lower
        self.peer_last = min(last, self.peer_last) if self.peer_goes else last
        self.peer_goes = True
        self.peer_code = code
        if not self.is_server:
            for stream in list(self.streams.values()):
                if stream.id > self.peer_last and not is_closed(stream.state) and not self.has_failed:
                    change_state(&stream.state, EVENT_RECEIVE_RESET)
                    self.closed_now(stream)
                    if not stream.is_released:
                        self.callbacks.on_stream_reset(stream, REFUSED_STREAM, True)
        return 0 if self.has_failed else self.callbacks.on_going_away(self.peer_last, code)

    cdef int handle_window(self, FrameHead* head, const char* payload) except -1:
        cdef uint32_t increment = read_32(payload) & MAX_STREAM
        cdef SessionStream stream
        cdef int fault
        if head.stream == 0:
            fault = widen_send_window(&self.send_left, increment)
            return self.fail(window_fault_code(fault), window_fault_text(fault)) if fault else 0
        stream = self.streams.get(head.stream)
        if stream is None:
            if self.find_state(head.stream) == STREAM_IDLE:
                return self.fail(PROTOCOL_ERROR, "WINDOW_UPDATE names a stream that is idle")
            return 0
        fault = widen_send_window(&stream.send_left, increment)
        if fault:
            return self.stream_error(stream, window_fault_code(fault))
        if stream.wait == WAIT_WINDOW and stream.send_left > 0:
            self.ring.append(stream)
        return 0

    cdef int handle_reset(self, FrameHead* head, const char* payload) except -1:
        cdef SessionStream stream = self.streams.get(head.stream)
        cdef uint32_t code = read_32(payload)
        cdef int limit = LIMIT_OK
        if stream is None:
            if self.find_state(head.stream) == STREAM_IDLE:
                return self.fail(PROTOCOL_ERROR, "RST_STREAM names a stream that is idle")
            return 0
        self.totals.resets_received[code_place(code)] += 1
        # an upstream that has answered may stop the upload as often as it likes
        if self.is_server or stream.state != STREAM_REMOTE_ENDED:
            limit = self.counters.note_reset(self.now)
        change_state(&stream.state, EVENT_RECEIVE_RESET)
        self.closed_now(stream)
        if not stream.is_released:
            self.callbacks.on_stream_reset(stream, code, True)
        return self.fail_limit(limit) if limit else 0

    # ---- streams ---------------------------------------------------------------------------------------------

    cdef int find_state(self, uint32_t number) noexcept:
        cdef bint is_peers = self.is_server and number & 1
        cdef int state
        if is_peers and self.has_left and number > self.goaway_last:
            # we said that we would not see it
            return STREAM_WE_RESET
        if is_peers:
            if number > self.last_peer:
                return STREAM_IDLE
        elif self.is_server or number & 1 == 0 or number >= self.next_own:
            return STREAM_IDLE
        state = recall_closed(&self.closed, number)
        if state != STREAM_IDLE:
            return state
        return STATE_FORGOTTEN if number <= self.closed.forgotten else STATE_SKIPPED

    cdef int refuse_event(self, uint32_t number, int event) except -1:
        """Do what an event does on a stream that is idle or closed."""
        cdef int answer, state = self.find_state(number)
        if state == STATE_FORGOTTEN or state == STATE_SKIPPED:
            # perhaps one that we reset long ago
            return self.glitch()
        answer = next_state(state, event)
        if answer == ANSWER_CLOSED_FATAL:
            return self.fail(STREAM_CLOSED, "a frame follows the end of its stream")
        if answer == ANSWER_PROTOCOL:
            return self.fail(PROTOCOL_ERROR, "a frame names a stream that is idle")
        if answer == ANSWER_CLOSED:
            self.reply_reset(number, STREAM_CLOSED)
            return self.glitch()
        return 0

    cdef int stream_error(self, SessionStream stream, uint32_t code) except -1:
        """End a stream by the peer's fault: the one place where that happens."""
        cdef int limit
        if is_closed(stream.state):
            return 0
        change_state(&stream.state, EVENT_SEND_RESET)
        self.reply_reset(stream.id, code)
        self.closed_now(stream)
        if not stream.is_known:
            stream.is_released = True
            self.settle(stream)
        elif not stream.is_released and not self.has_failed:
            self.callbacks.on_stream_reset(stream, code, False)
        limit = self.counters.note_reset(self.now)
        if limit:
            return self.fail_limit(limit)
        return self.glitch()

    cdef int end_remote(self, SessionStream stream) except -1:
        stream.has_ended = True
        self.end_promise(stream)
        change_state(&stream.state, EVENT_RECEIVE_END)
        return self.closed_now(stream) if is_closed(stream.state) else 0

    cdef int deliver_end(self, SessionStream stream) except -1:
        cdef bytes lines
        if stream.is_released or stream.state == STREAM_WE_RESET or self.has_failed:
            return 0
        if stream.kept_size():
            stream.end_waits = True
            return 0
        lines = stream.trailers_wait
        if lines is not None:
            stream.trailers_wait = None
            self.callbacks.on_stream_trailers(stream, lines)
        return self.callbacks.on_stream_end(stream)

    cdef int end_local(self, SessionStream stream) except -1:
        self.ring.remove(stream)
        stream.wait = WAIT_NOTHING
        change_state(&stream.state, EVENT_SEND_END)
        return self.closed_now(stream) if is_closed(stream.state) else 0

    cdef int closed_now(self, SessionStream stream) except -1:
        self.ring.remove(stream)
        stream.wait = WAIT_NOTHING
        if self.streams.pop(stream.id, None) is not None:
            self.totals.http2_streams -= 1
        remember_closed(&self.closed, stream.id, stream.state)
        self.end_promise(stream)
        if self.data_stream is stream:
            self.data_stream = None
        return self.settle(stream)

    cdef int settle(self, SessionStream stream) except -1:
        if stream.is_counted and stream.is_released and is_closed(stream.state):
            stream.is_counted = False
            self.active -= 1
            self.heads -= stream.head_size
        return 0

    cdef int credit(self, SessionStream stream, uint32_t length) except -1:
        """So much of a stream's content was taken; tell the peer when it is time."""
        cdef int64_t size = stream.window.size, most
        cdef uint32_t increment
        if self.has_failed or not may_receive(stream.state) or (self.data_stream is stream and self.data_ends):
            # nothing more will come
            return 0
        most = min(self.limits.max_window, size + self.arena.budget.promise_room(self.promised))
        increment = take_octets(&stream.window, length, stream.kept_size() > 0, self.now, self.round_trip, most)
        if stream.window.size > size:
            self.totals.http2_window_growths += 1
            self.promise(stream, stream.window.size - size)
        return self.write_window(stream.id, increment) if increment else 0

    cdef int promise(self, SessionStream stream, int64_t count) except -1:
        stream.promised += count
        self.promised += count
        self.arena.budget.promise(count)
        return 0

    cdef int end_promise(self, SessionStream stream) except -1:
        """Nothing more may come."""
        return 0 if self.has_failed or stream.promised == 0 else self.promise(stream, -stream.promised)

    cdef int wait_for(self, SessionStream stream, int wait) except -1:
        if stream.waits_since < 0:
            stream.waits_since = self.now
            stream.moved = 0
        if wait == WAIT_TURN:
            self.ring.append(stream)
        else:
            stream.wait = wait
        return 0
