"""What is seen of a WebSocket on its way: the messages of one direction, read for the handler.

Text and binary messages and the Close are shown; ping and pong are not. What cannot be decoded ends the decoding of its direction, and
the traffic goes on. What breaks RFC 6455 is not passed on, nor is anything behind it or behind a Close, unless `websocket.on_violation`
says so. Of a frame whose beginning had passed before its fault was read, at least the octets of that last read stay here, so that it does
not arrive whole.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t

from soth_mitm._dataplane.exchange.budget_share cimport BudgetShare
from soth_mitm._dataplane.http.messages cimport new_chunk
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport Stream
from soth_mitm._dataplane.memory.view cimport View, view_bytes
from soth_mitm._dataplane.websocket.frame cimport FRAMES_CLOSING, OPCODE_CLOSE, OPCODE_TEXT
from soth_mitm._dataplane.websocket.handshake cimport Agreement
from soth_mitm._dataplane.websocket.message_reader cimport (
    EVENT_CLOSE, EVENT_CONTROL, EVENT_IGNORED, EVENT_MESSAGE, EVENT_TURN, EVENT_VIOLATION, MessageReader,
)
from soth_mitm._dataplane.websocket.violations cimport DEFLATE_DATA, TOO_LONG

from soth_mitm._dataplane.http.messages import FrameKind

TEXT, BINARY, CLOSE = FrameKind.WEBSOCKET_TEXT, FrameKind.WEBSOCKET_BINARY, FrameKind.WEBSOCKET_CLOSE

cdef enum:
    MOST_MESSAGES = 64         # that are shown in one turn of the loop
    INFLATER_OCTETS = 23552    # of memory: a window, and what zlib has beside it


@cython.final
cdef class MessageTap:
    """Reads the messages of one direction of a WebSocket, which pass meanwhile."""

    cdef int pass_on(self, View content, Stream sink) except -1:
        cdef bytes data
        if content.len == 0 or self.violation:
            return 0
        if self.reader is None:
            return sink.send_content(content.ptr, content.len)
        if self.rest is None and not self.is_behind:
            return self.read(content.ptr, content.len, sink)
        data = view_bytes(content)
        if self.rest is not None:
            data = self.rest + data
        if self.is_behind:
            self.rest = data
            return self.count()
        return self.read(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), sink)

    cdef int take_turn(self, Stream sink) except -1:
        cdef bytes data = b"" if self.rest is None else self.rest
        if self.reader is None:
            return 0
        self.reader.begin_turn()
        return self.read(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), sink)

    cdef int finish(self, Stream sink) except -1:
        cdef bytes data = self.rest
        if data is None or self.violation:
            return 0
        if self.is_behind:
            self.is_last = True
            self.take_turn(sink)
            if self.violation or not self.is_behind or self.settings.websocket_closes:
                return 0
            # more is to be inflated than one turn may
            data = self.rest
        # else a head that is not whole: nothing is wrong with it so far
        self.rest = None
        self.count()
        return sink.send_content(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    cdef bint takes_close(self) noexcept:
        # without a reader it is not known
        return self.reader is not None and not self.ends_in_frame and (
            self.violation != 0 or self.reader.frames.state != FRAMES_CLOSING)

    cdef int read(self, const char* p, Py_ssize_t n, Stream sink) except -1:
        cdef Py_ssize_t at = self.ahead, used = 0, passed
        cdef uint64_t begun = self.reader.at - <uint64_t>at
        cdef int event
        self.is_behind = False
        while True:
            if len(self.found) >= MOST_MESSAGES and not self.is_last:
                self.is_behind = True
                break
            event = self.reader.next(p + at, n - at, &used)
            at += used
            if event == EVENT_MESSAGE or event == EVENT_CLOSE:
                self.add()
            elif event == EVENT_VIOLATION:
                if self.goes_on():
                    continue
                break
            elif event == EVENT_IGNORED and self.settings.websocket_closes:
                # its receiver would have to drop them (RFC 6455 section 1.4)
                self.drop_ignored()
                n = at = at - used
                break
            elif event != EVENT_CONTROL and event != EVENT_IGNORED:
                self.is_behind = event == EVENT_TURN
                break
        passed = n if self.reader is None else self.passed_of(begun, at)
        if passed:
            sink.send_content(p, passed)
        self.ahead = at - passed
        self.rest = None if passed == n else p[passed:n]
        return self.count()

    cdef Py_ssize_t passed_of(self, uint64_t begun, Py_ssize_t taken) noexcept:
        """Return how many of the octets that were taken since `begun` pass now: of a frame that is wrong, or not judged yet, none."""
        cdef bint is_held = self.is_behind and self.reader.is_in_frame
        if self.reader.frames.violation or not (self.violation or is_held):
            # a head that is wrong was not taken
            self.ends_in_frame = self.reader.frames.left > 0
            return taken
        # its beginning may have passed
        self.ends_in_frame = self.reader.frame_begin < begun
        return 0 if self.ends_in_frame else <Py_ssize_t>(self.reader.frame_begin - begun)

    cdef int add(self) except -1:
        kind = TEXT if self.reader.kind == OPCODE_TEXT else CLOSE if self.reader.kind == OPCODE_CLOSE else BINARY
        if len(self.found) >= MOST_MESSAGES:
            # nobody is to wait any more until the handler has room for them
            self.settings.counters.dropped_chunks += 1
            return 0
        self.found.append(new_chunk(self.reader.payload, kind, not self.reader.is_complete))
        return 0

    cdef int drop_ignored(self) except -1:
        if not self.has_ignored:
            self.has_ignored = True
            self.settings.counters.websocket_violations += 1
        return 0

    cdef bint goes_on(self) except -1:
        if self.reader.violation == DEFLATE_DATA or self.reader.violation == TOO_LONG:
            # frames are still read: the Close is shown
            self.settings.counters.websocket_decode_errors += 1
            self.reader.skip()
            return True
        self.settings.counters.websocket_violations += 1
        if self.settings.websocket_closes:
            self.violation = self.reader.violation
        else:
            self.stop()
        return False

    cdef int stop(self) except -1:
        self.settings.counters.websocket_decode_errors += self.is_behind
        self.reader = None
        self.rest = None
        self.ahead = 0
        self.is_behind = False
        return self.count()

    cdef int count(self) except -1:
        cdef Py_ssize_t before = self.held
        self.held = 0 if self.rest is None else PyBytes_GET_SIZE(self.rest)
        if self.reader is not None:
            self.held += self.reader.held()
            if self.reader.inflater is not None:
                self.held += INFLATER_OCTETS
        if self.held > before:
            return self.share.charge(self.held - before)
        return self.share.refund(before - self.held) if self.held < before else 0


cdef MessageTap new_message_tap(Settings settings, BudgetShare share, bint from_client, const Agreement* agreement):
    cdef MessageTap tap = MessageTap.__new__(MessageTap)
    tap.settings = settings
    tap.share = share
    tap.reader = MessageReader(
        from_client, settings.body_limit, may_compress=agreement.compresses,
        takeover=agreement.client_takeover if from_client else agreement.upstream_takeover)
    tap.found = []
    tap.direction = "to_upstream" if from_client else "to_client"
    return tap
