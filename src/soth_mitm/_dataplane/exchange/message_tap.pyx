"""What is seen of a WebSocket on its way: the messages of one direction, read for the handler.

Text and binary messages and the Close are shown; ping and pong are not. What cannot be decoded ends the decoding of its direction, and
the traffic goes on. What breaks RFC 6455 is not passed on, nor is anything behind it, unless `websocket.on_violation` says so.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t

from soth_mitm._dataplane.exchange.budget_share cimport BudgetShare
from soth_mitm._dataplane.http.messages cimport new_chunk
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport Stream
from soth_mitm._dataplane.memory.view cimport View, view_bytes
from soth_mitm._dataplane.websocket.frame cimport OPCODE_CLOSE, OPCODE_TEXT
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
        self.rest = None
        self.count()
        return sink.send_content(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    cdef bint is_in_frame(self) noexcept:
        # without a reader it is not known
        return self.ends_in_frame if self.violation else self.reader is None or self.reader.frames.left > 0

    cdef int read(self, const char* p, Py_ssize_t n, Stream sink) except -1:
        cdef Py_ssize_t at = 0, used = 0
        cdef uint64_t begun = self.reader.at
        cdef int event
        self.is_behind = False
        while True:
            if len(self.found) >= MOST_MESSAGES:
                self.is_behind = True
                break
            event = self.reader.next(p + at, n - at, &used)
            at += used
            if event == EVENT_MESSAGE or event == EVENT_CLOSE:
                self.add()
            elif event == EVENT_VIOLATION:
                if self.goes_on():
                    continue
                at = self.before_violation(begun, at) if self.violation else n
                break
            elif event != EVENT_CONTROL and event != EVENT_IGNORED:
                self.is_behind = event == EVENT_TURN
                break
        if at:
            sink.send_content(p, at)
        self.rest = None if self.reader is None or at == n else p[at:n]
        return self.count()

    cdef Py_ssize_t before_violation(self, uint64_t begun, Py_ssize_t taken) noexcept:
        """Return how many of the octets that were taken since `begun` still pass: those before the frame at fault."""
        if self.reader.frames.violation:
            # a head, which was not taken
            return taken
        if self.reader.frame_begin >= begun:
            return <Py_ssize_t>(self.reader.frame_begin - begun)
        # its beginning has passed
        self.ends_in_frame = self.reader.frames.left > 0
        return taken

    cdef int add(self) except -1:
        kind = TEXT if self.reader.kind == OPCODE_TEXT else CLOSE if self.reader.kind == OPCODE_CLOSE else BINARY
        self.found.append(new_chunk(self.reader.payload, kind, not self.reader.is_complete))
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
