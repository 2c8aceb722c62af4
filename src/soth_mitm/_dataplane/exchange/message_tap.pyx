"""What is seen of a WebSocket on its way: the messages of one direction, read for the handler, and those that it puts in.

Text and binary messages and the Close are shown; ping and pong are not. What cannot be decoded ends the decoding of its direction, and
the traffic goes on. What breaks RFC 6455 is not passed on, nor is anything behind it or behind a Close, unless `websocket.on_violation`
says so. Of a frame whose beginning had passed before its fault was read, at least the octets of that last read stay here, so that it does
not arrive whole.
"""

from collections import deque

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint64_t

from soth_mitm._dataplane.exchange.budget_share cimport LEAST_HELD, BudgetShare
from soth_mitm._dataplane.http.counters cimport WEBSOCKET_VIOLATIONS_END
from soth_mitm._dataplane.http.messages cimport StreamChunk, new_chunk
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport Stream
from soth_mitm._dataplane.memory.view cimport View, view_bytes
from soth_mitm._dataplane.websocket.frame cimport FRAMES_MESSAGE, OPCODE_BINARY, OPCODE_CLOSE, OPCODE_TEXT
from soth_mitm._dataplane.websocket.handshake cimport Agreement
from soth_mitm._dataplane.websocket.message_reader cimport (
    CUT_LONG, EVENT_CLOSE, EVENT_CONTROL, EVENT_IGNORED, EVENT_MESSAGE, EVENT_TURN, EVENT_VIOLATION, MessageReader,
)
from soth_mitm._dataplane.websocket.message_writer cimport MessageWriter
from soth_mitm._dataplane.websocket.violations cimport BEHIND_CLOSE, DEFLATE_DATA, TOO_LONG

from soth_mitm._dataplane.http.messages import FrameKind

KINDS = {
    OPCODE_TEXT: FrameKind.WEBSOCKET_TEXT, OPCODE_BINARY: FrameKind.WEBSOCKET_BINARY, OPCODE_CLOSE: FrameKind.WEBSOCKET_CLOSE,
}

cdef enum:
    INFLATER_OCTETS = 23552    # of memory: a window, and what zlib has beside it


@cython.final
cdef class Injection:
    """A message that the handler sends unasked."""

    def __cinit__(self, bytes payload not None, bint is_text, sent):
        self.payload = payload
        self.is_text = is_text
        self.sent = sent


# not final: a filter is one
cdef class MessageTap(Waiter):
    """Reads the messages of one direction of a WebSocket, which pass meanwhile."""

    cdef int pass_on(self, View content, Stream sink) except -1:
        cdef bytes data
        if content.len == 0 or self.violation or self.end_code:
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
        if self.reader is None or self.violation or self.end_code:
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
        return 0 if data is None else sink.send_content(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    cdef bint takes_close(self) noexcept:
        # without a reader it is not known
        return self.reader is not None and not self.ends_in_frame and not self.has_closed

    cdef bint at_border(self) noexcept:
        return self.takes_close() and not self.ends_in_message and not self.violation and not self.end_code

    cdef bint wants_pause(self) noexcept:
        return self.is_behind

    cdef bint is_holding(self) noexcept:
        return self.reader is not None and self.reader.held() > 0

    cdef int read(self, const char* p, Py_ssize_t n, Stream sink) except -1:
        cdef Py_ssize_t at = self.ahead, begin = 0, used = 0, passed
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
                if self.injections and event == EVENT_MESSAGE:
                    # a message of the handler's waits for this border
                    sink.send_content(p + begin, at - begin)
                    begin = at
                    self.ends_in_frame = self.ends_in_message = False
                    self.put_in(sink)
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
        if self.reader is not None and self.reader.held() > LEAST_HELD and self.share.must_cut():
            self.reader.stop_keeping()
        passed = n if self.reader is None else self.passed_of(begun, at)
        if passed > begin:
            sink.send_content(p + begin, passed - begin)
        self.ahead = 0 if self.reader is None else at - passed
        self.rest = None if passed == n else p[passed:n]
        return self.count()

    cdef Py_ssize_t passed_of(self, uint64_t begun, Py_ssize_t taken) noexcept:
        """Return how many of the octets that were taken since `begun` pass now: of a frame that is wrong, or not judged yet, none."""
        cdef bint is_held = self.is_behind and self.reader.is_in_frame
        if self.reader.frames.violation or not (self.violation or is_held):
            # a head that is wrong was not taken
            self.ends_in_frame = self.reader.frames.left > 0
            self.ends_in_message = self.reader.frames.state == FRAMES_MESSAGE
            return taken
        # its beginning may have passed
        self.ends_in_frame = self.reader.frame_begin < begun
        self.ends_in_message = True
        return 0 if self.ends_in_frame else <Py_ssize_t>(self.reader.frame_begin - begun)

    # ---- what was read

    cdef int add(self) except -1:
        cdef bytes payload = self.reader.payload
        if self.reader.kind == OPCODE_CLOSE:
            self.has_closed = True
            self.close_code = int.from_bytes(payload[:2], "big") if payload else <int>NO_CODE
        else:
            self.count_message()
        return self.show(payload, self.reader.kind, not self.reader.is_complete, False, False)

    cdef int count_message(self) except -1:
        self.messages += 1
        self.settings.counters.websocket_messages[(0 if self.from_client else 2) + (self.reader.kind == OPCODE_BINARY)] += 1
        self.settings.counters.websocket_compressed += self.reader.is_compressed
        return 0

    cdef int show(self, bytes payload, int opcode, bint truncated, bint replaced, bint injected) except -1:
        cdef StreamChunk chunk
        if self.recording is not None:
            self.recording.note_message(
                not self.from_client, opcode, payload,
                max(<int64_t>len(payload), <int64_t>self.reader.total) if truncated else <int64_t>len(payload))
        if not self.is_shown:
            return 0
        if len(self.found) >= MOST_MESSAGES and self.is_last:
            # nobody is to wait any more until the handler has room for them
            self.settings.counters.dropped_chunks += 1
            return 0
        chunk = new_chunk(payload, KINDS[opcode], truncated)
        chunk.replaced = replaced
        chunk.injected = injected
        self.found.append(chunk)
        return 0

    cdef int drop_ignored(self) except -1:
        if not self.has_ignored:
            self.has_ignored = True
            self.count_violation(BEHIND_CLOSE)
        return 0

    cdef int count_violation(self, int violation) except -1:
        self.settings.counters.websocket_violations += 1
        self.settings.counters.websocket_violations_of[violation + (0 if self.from_client else WEBSOCKET_VIOLATIONS_END)] += 1
        return 0

    cdef bint goes_on(self) except -1:
        if self.reader.violation == DEFLATE_DATA or self.reader.violation == TOO_LONG:
            # frames are still read: the Close is shown
            self.settings.counters.websocket_decode_errors += 1
            self.reader.skip()
            return True
        self.count_violation(self.reader.violation)
        if self.settings.websocket_closes:
            self.violation = self.reader.violation
        else:
            self.reader = None
            self.refuse_injections("the WebSocket is not read any more, since its peer breaks RFC 6455")
        return False

    # ---- messages of the handler's own

    cdef bint inject(self, Injection injection) except -1:
        cdef Py_ssize_t more = PyBytes_GET_SIZE(injection.payload)
        if self.injections is None:
            self.injections = deque()
            self.surplus = deque()
        if self.surplus or len(self.injections) >= MOST_INJECTIONS or (
                self.injections and self.injected + more > self.settings.body_limit):
            if injection.sent is None:
                return False
            self.surplus.append(injection)
            return True
        self.injections.append(injection)
        self.injected += more
        self.count()
        return True

    cdef int put_in(self, Stream sink) except -1:
        cdef Injection injection
        cdef bytes frame, payload
        cdef int opcode
        while self.injections and self.at_border():
            if sink.is_write_paused() or sink.room() <= 0:
                # nothing else may ever wait for it
                sink.await_room()
                break
            injection = self.injections.popleft()
            self.injected -= PyBytes_GET_SIZE(injection.payload)
            if self.surplus:
                self.inject_surplus()
            if injection.sent is not None and injection.sent.done():
                # nobody waits for it any more
                continue
            opcode = OPCODE_TEXT if injection.is_text else OPCODE_BINARY
            payload = self.outgoing(injection.payload, opcode)
            if payload is None:
                if injection.sent is not None:
                    injection.sent.set_exception(ValueError("the message has a credential in it that may not go to this upstream"))
                break
            frame = self.own_frame(opcode, payload, False)
            sink.send_content(PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame))
            self.settings.counters.websocket_injected += 1
            self.show(injection.payload, opcode, False, False, True)
            if injection.sent is not None:
                injection.sent.set_result(None)
        return self.count()

    cdef int inject_surplus(self) except -1:
        surplus, self.surplus = self.surplus, deque()
        for injection in surplus:
            self.inject(<Injection>injection)
        return 0

    cdef int refuse_injections(self, str why) except -1:
        cdef Injection injection
        if self.injections is None:
            return 0
        for injection in (*self.injections, *self.surplus):
            if injection.sent is not None and not injection.sent.done():
                injection.sent.set_exception(LookupError(why))
        self.injections = self.surplus = None
        self.injected = 0
        return 0

    cdef bytes outgoing(self, bytes payload, int opcode):
        return payload

    cdef bytes own_frame(self, int opcode, bytes payload, bint is_compressed):
        if self.writer is None:
            self.writer = MessageWriter(self.from_client)
        return self.writer.message(opcode, payload, is_compressed)

    # ---- the end, and the budget

    cdef int stop_deciding(self) except -1:
        return self.refuse_injections("the WebSocket is over")

    cdef int stop(self) except -1:
        self.settings.counters.websocket_decode_errors += self.is_behind
        self.stop_deciding()
        # they refer to us
        self.tunnel = None
        self.watcher = None
        self.reader = None
        self.rest = None
        self.ahead = 0
        self.is_behind = self.is_waiting = False
        return self.count()

    cdef Py_ssize_t size_held(self) noexcept:
        cdef Py_ssize_t held = self.injected + (0 if self.rest is None else PyBytes_GET_SIZE(self.rest))
        if self.reader is not None:
            held += self.reader.held()
            if self.reader.inflater is not None:
                held += INFLATER_OCTETS
        return held

    cdef int count(self) except -1:
        cdef Py_ssize_t before = self.held
        self.held = self.size_held()
        if self.held > before:
            return self.share.charge(self.held - before)
        return self.share.refund(before - self.held) if self.held < before else 0


cdef int open_tap(
        MessageTap tap, Settings settings, BudgetShare share, bint from_client, const Agreement* agreement, int when_long) except -1:
    tap.settings = settings
    tap.share = share
    tap.reader = MessageReader(
        from_client, settings.body_limit, may_compress=agreement.compresses,
        takeover=agreement.client_takeover if from_client else agreement.upstream_takeover, when_long=when_long)
    tap.from_client = from_client
    tap.is_shown = settings.hooks.on_stream_chunk is not None
    tap.found = []
    tap.direction = "to_upstream" if from_client else "to_client"
    return 0


cdef MessageTap new_message_tap(Settings settings, BudgetShare share, bint from_client, const Agreement* agreement):
    cdef MessageTap tap = MessageTap.__new__(MessageTap)
    open_tap(tap, settings, share, from_client, agreement, CUT_LONG)
    return tap
