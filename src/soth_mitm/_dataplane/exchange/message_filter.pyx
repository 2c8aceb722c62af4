"""What decides about the messages of one direction of a WebSocket: each is held until the handler has said what becomes of it.

A message that passes keeps its octets, unless one before it was changed and the direction is compressed (websocket/windows). What takes
its place is one frame. Pings and pongs do not wait, the Close does. What breaks RFC 6455, and what cannot be decoded, is not passed on,
whatever `websocket.on_violation` says; nor is a message that is not decided about when the WebSocket ends.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memmove

from soth_mitm._dataplane.exchange.budget_share cimport LEAST_HELD, BudgetShare
from soth_mitm._dataplane.exchange.callbacks cimport ExchangeCallbacks, TunnelCallbacks
from soth_mitm._dataplane.exchange.chunk_judge cimport (
    CHUNK_ABORT, CHUNK_DROP, CHUNK_END, CHUNK_NOT_WANTED, CHUNK_PASS, CHUNK_PENDING, CHUNK_REPLACE, new_chunk_judge,
)
from soth_mitm._dataplane.exchange.credentials cimport MessageTerms
from soth_mitm._dataplane.exchange.message_tap cimport MOST_MESSAGES, MessageTap, open_tap
from soth_mitm._dataplane.http.messages cimport BIT_WEBSOCKET_BINARY, BIT_WEBSOCKET_TEXT, StreamChunk, new_chunk
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport Stream
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.websocket.frame cimport BIT_CONTROL, BITS_OPCODE, OPCODE_CLOSE, OPCODE_PING, OPCODE_PONG, OPCODE_TEXT
from soth_mitm._dataplane.websocket.handshake cimport Agreement
from soth_mitm._dataplane.websocket.message_reader cimport (
    EVENT_CLOSE, EVENT_CONTROL, EVENT_END, EVENT_IGNORED, EVENT_LONG, EVENT_MESSAGE, EVENT_TURN, EVENT_VIOLATION, SHOW_LONG,
)
from soth_mitm._dataplane.websocket.payload cimport SOTH_UTF8_BORDER, soth_utf8
from soth_mitm._dataplane.websocket.violations cimport TOO_LONG
from soth_mitm._dataplane.websocket.windows cimport WINDOWS_OWN, Windows

from soth_mitm._dataplane.exchange.message_tap import KINDS

cdef enum:
    LEAST_KEPT = 65536         # octets of frames: so many are kept of a message, however short it may be

# of a Close of ours
cdef bytes ENDED = b"ended by the handler of the proxy"
cdef bytes UNDECIDED = b"the handler of the proxy did not decide"
cdef bytes MISDIRECTED = b"placeholder_misdirected: that credential is not for here"
cdef bytes OVERDUE = b"the message was not complete in time"


@cython.final
cdef class MessageFilter(MessageTap):
    """Holds each message of one direction of a WebSocket until it is decided about."""

    cdef int read(self, const char* p, Py_ssize_t n, Stream sink) except -1:
        cdef Py_ssize_t at = 0, used = 0
        cdef int event
        self.is_behind = False
        self.sink = sink
        while True:
            if self.is_waiting:
                if not self.overtakes(p + at, n - at):
                    break
            elif len(self.found) >= MOST_MESSAGES:
                self.is_behind = True
                break
            event = self.reader.next(p + at, n - at, &used)
            self.keep(p + at, used)
            at += used
            if event == EVENT_TURN:
                self.is_behind = True
                break
            if not self.take(event):
                break
            if self.injections:
                self.put_in(sink)
        self.rest = None if at == n or self.violation or self.end_code else p[at:n]
        self.set_patience()
        return self.count()

    cdef int take(self, int event) except -1:
        """Deal with an event; 0: there is no further one now."""
        cdef Py_ssize_t control, begin
        if event == EVENT_MESSAGE or event == EVENT_LONG:
            self.payload = self.came = self.reader.payload
            self.opcode = self.reader.kind
            self.is_whole = event == EVENT_MESSAGE
            self.is_packed = self.reader.is_compressed
            self.size = PyByteArray_GET_SIZE(self.kept) - self.control_size()
            self.count_message()
            if self.terms is not None:
                if not self.is_whole:
                    # its rest would pass unsearched
                    self.refuse(TOO_LONG)
                    return 0
                if not self.from_client:
                    self.payload = self.terms.without_values(self.payload, self.opcode == OPCODE_TEXT)
            if self.state == HOLD_ALL:
                self.decide()
            else:
                # it is none to be asked about, and passes already
                self.show(self.payload, self.opcode, not self.is_whole, False, False)
                if self.is_whole:
                    self.end_message()
            return not (self.violation or self.end_code)
        if event == EVENT_END:
            self.end_message()
        elif event == EVENT_CONTROL or event == EVENT_CLOSE:
            # before the message that is held; or, of one that passes, behind the fragments before it
            if event == EVENT_CLOSE and self.outgoing(self.reader.payload, OPCODE_CLOSE) is None:
                return 0
            if event == EVENT_CLOSE and self.terms is not None and not self.from_client:
                self.redact_close()
            control = <Py_ssize_t>(self.reader.end - self.reader.begin)
            begin = 0 if self.state == HOLD_PASS else PyByteArray_GET_SIZE(self.kept) - control
            self.send_kept(begin, PyByteArray_GET_SIZE(self.kept) - begin)
            PyByteArray_Resize(self.kept, begin)
            self.ends_in_frame = False
            if event == EVENT_CLOSE:
                # a message that has begun does not become complete any more
                PyByteArray_Resize(self.kept, 0)
                self.add()
        elif event == EVENT_IGNORED:
            # its receiver would have to drop them (RFC 6455 section 1.4)
            PyByteArray_Resize(self.kept, 0)
            self.drop_ignored()
        elif event == EVENT_VIOLATION:
            self.refuse(self.reader.violation)
            return 0
        else:
            self.await_more()
            return 0
        return 1

    cdef int await_more(self) except -1:
        cdef Py_ssize_t control = self.control_size()
        if self.is_waiting or PyByteArray_GET_SIZE(self.kept) == 0:
            return 0
        if self.state == HOLD_ALL and self.reader.is_in_message:
            if self.terms is None and not self.is_asked_about(self.reader.message_kind) and not (
                    self.reader.message_compressed and self.windows.state == WINDOWS_OWN):
                self.state = HOLD_PASS
            elif PyByteArray_GET_SIZE(self.kept) > self.most_kept():
                # frames that are almost empty, or memory is short
                self.show_beginning()
        if self.state == HOLD_PASS:
            self.send_kept(0, PyByteArray_GET_SIZE(self.kept))
            PyByteArray_Resize(self.kept, 0)
            self.ends_in_frame = self.reader.frames.left > 0
            self.ends_in_message = True
        elif self.state == HOLD_DROP:
            self.cut_kept(0, PyByteArray_GET_SIZE(self.kept) - control)
        return 0

    cdef Py_ssize_t most_kept(self) noexcept:
        return LEAST_HELD if self.share.must_cut() else max(2 * self.settings.body_limit, <Py_ssize_t>LEAST_KEPT)

    cdef int show_beginning(self) except -1:
        return self.take(EVENT_LONG) if self.reader.show_beginning() else 0

    cdef bint overtakes(self, const char* p, Py_ssize_t n) noexcept:
        if n == 0:
            return False
        if self.reader.is_in_frame:
            return self.control_size() > 0
        return p[0] & BITS_OPCODE == OPCODE_PING or p[0] & BITS_OPCODE == OPCODE_PONG

    cdef bint wants_pause(self) noexcept:
        return self.is_behind or (
            self.is_waiting and self.rest is not None
            and not self.overtakes(PyBytes_AS_STRING(self.rest), PyBytes_GET_SIZE(self.rest)))

    cdef bint is_holding(self) noexcept:
        return PyByteArray_GET_SIZE(self.kept) > 0

    # ---- the decision

    cdef bint is_asked_about(self, int opcode) noexcept:
        return self.kinds & (BIT_WEBSOCKET_TEXT if opcode == OPCODE_TEXT else BIT_WEBSOCKET_BINARY) != 0

    cdef bint is_refused(self) noexcept:
        return not self.is_whole and (self.settings.refuse_incomplete or self.settings.reject_overflow)

    cdef bint must_recode(self) noexcept:
        return self.is_packed and self.windows.state == WINDOWS_OWN

    cdef int decide(self) except -1:
        cdef StreamChunk chunk
        cdef int verdict
        if not self.is_asked_about(self.opcode):
            return self.pass_message()
        if self.is_refused():
            self.judge.end_unasked(ValueError("the message is longer than body.max_size_bytes"))
            return self.refuse(TOO_LONG)
        chunk = new_chunk(self.payload, KINDS[self.opcode], not self.is_whole)
        self.watcher.describe_chunk(chunk, self.direction, self.asked)
        self.asked += 1
        verdict = self.judge.ask(chunk)
        if verdict == CHUNK_PENDING:
            self.is_waiting = True
            self.asker = self.watcher
            self.asker.on_call_begun()
            return 0
        # the hook may have ended the flow
        return 0 if self.reader is None else self.apply(verdict)

    cdef int on_chunk_judged(self, int verdict) except -1:
        # references of our own: it may end meanwhile
        cdef ExchangeCallbacks asker = self.asker
        cdef TunnelCallbacks tunnel = self.tunnel
        self.asker = None
        self.is_waiting = False
        if tunnel is None:
            self.judge.owner = None
        elif verdict != CHUNK_NOT_WANTED:
            self.apply(verdict)
            tunnel.on_tap(self)
        return asker.on_call_returned()

    cdef int apply(self, int verdict) except -1:
        if verdict == CHUNK_PASS:
            return self.pass_message()
        if verdict == CHUNK_DROP:
            if self.is_packed:
                self.windows.leave_out()
            self.cut_kept(0, self.size)
            self.state = HOLD_ALL if self.is_whole else HOLD_DROP
            return 0
        if verdict == CHUNK_REPLACE:
            return self.replace_message()
        if verdict == CHUNK_END:
            return self.end(1008, ENDED if self.judge.error is None else UNDECIDED, None)
        assert verdict == CHUNK_ABORT
        return self.end(1011, UNDECIDED, self.judge.error)

    cdef bytes outgoing(self, bytes payload, int opcode):
        if self.terms is None or not self.from_client:
            return payload
        if self.terms.forbids(payload):
            self.settings.counters.placeholders_blocked += 1
            self.end(1008, MISDIRECTED, None)
            return None
        return self.terms.with_values(payload) if opcode == OPCODE_TEXT else payload

    cdef int send_own(self, bytes payload, bytes left) except -1:
        cdef bytes packed = left
        if self.is_packed:
            # in one window, a value and text that a peer chooses would tell of each other by their length
            packed = self.windows.replace(left, left is payload)
        return self.send_frame(self.own_frame(self.opcode, packed, self.is_packed and self.windows.is_compressed))

    cdef int redact_close(self) except -1:
        cdef bytes payload = self.terms.close_without_values(self.reader.payload), frame
        if payload is self.reader.payload:
            return 0
        self.reader.payload = payload
        frame = self.own_frame(OPCODE_CLOSE, payload, False)
        PyByteArray_Resize(self.kept, PyByteArray_GET_SIZE(self.kept) - <Py_ssize_t>(self.reader.end - self.reader.begin))
        self.reader.begin = self.reader.end - <uint64_t>PyBytes_GET_SIZE(frame)
        return self.keep(PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame))

    cdef int pass_message(self) except -1:
        cdef bytes packed = None, left = self.payload
        if self.must_recode() and not self.is_whole:
            # the receiver cannot read what the sender has compressed, and the rest is not here
            return self.refuse(TOO_LONG)
        if self.terms is not None:
            left = self.outgoing(self.payload, self.opcode)
            if left is None:
                return 0
            if left is not self.came:
                self.send_own(self.payload, left)
                self.cut_kept(0, self.size)
                return self.show(self.payload, self.opcode, False, False, False)
        if self.is_packed:
            packed = self.windows.keep(self.payload)
        if packed is None:
            self.send_kept(0, self.size)
        else:
            self.settings.counters.websocket_recoded += 1
            self.send_frame(self.own_frame(self.opcode, packed, self.windows.is_compressed))
        self.cut_kept(0, self.size)
        self.show(self.payload, self.opcode, not self.is_whole, False, False)
        if not self.is_whole:
            self.state = HOLD_PASS
            self.ends_in_frame = self.reader.frames.left > 0 and self.control_size() == 0
            self.ends_in_message = True
        return 0

    cdef int replace_message(self) except -1:
        cdef tuple payloads = self.judge.payloads
        cdef list leaving = []
        cdef bytes payload, left
        cdef str objection = self.objection()
        if objection is not None:
            return self.apply(self.judge.refuse(ValueError(objection)))
        for payload in payloads:
            left = self.outgoing(payload, self.opcode)
            if left is None:
                return 0
            leaving.append(left)
        for payload, left in zip(payloads, leaving):
            self.send_own(payload, left)
            self.show(payload, self.opcode, False, True, False)
        self.cut_kept(0, self.size)
        return 0

    cdef str objection(self):
        if not self.is_whole:
            return "a message that is truncated cannot be replaced"
        for payload in self.judge.payloads:
            if type(payload) is not bytes:
                return "an SseEvent cannot replace a message of a WebSocket"
            if self.opcode == OPCODE_TEXT and soth_utf8(
                    SOTH_UTF8_BORDER, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload)) != SOTH_UTF8_BORDER:
                return "the bytes that are to replace a text message are not UTF-8"
        return None

    cdef int end_message(self) except -1:
        """A message has come to its end whose fate was known before."""
        if self.state == HOLD_PASS:
            self.send_kept(0, PyByteArray_GET_SIZE(self.kept))
        PyByteArray_Resize(self.kept, 0)
        self.state = HOLD_ALL
        self.ends_in_frame = self.ends_in_message = False
        return 0

    cdef int end(self, int code, bytes reason, object error) except -1:
        self.end_code = code
        self.end_reason = reason
        self.end_error = error
        PyByteArray_Resize(self.kept, 0)
        return 0

    cdef int refuse(self, int violation) except -1:
        self.count_violation(violation)
        self.violation = violation
        PyByteArray_Resize(self.kept, 0)
        return 0

    # ---- time

    cdef int set_patience(self) except -1:
        cdef bint is_due = (
            self.state == HOLD_ALL and not self.is_waiting and self.reader.is_in_message and not self.violation and not self.end_code)
        if not is_due:
            if self.patience is not None:
                self.patience.clear()
            return 0
        if self.patience is None:
            self.patience = Deadline(self)
        return 0 if self.patience.queue is not None else self.patience.set(self.settings.body_buffer, 0)

    cdef int on_deadline(self, int stage) except -1:
        cdef TunnelCallbacks tunnel = self.tunnel
        if tunnel is None or self.is_waiting or not self.reader.is_in_message:
            return 0
        if self.settings.refuse_incomplete or self.terms is not None:
            self.judge.end_unasked(TimeoutError("the message was not complete in time (body.buffer_timeout_ms)"))
            self.end(1008, OVERDUE, None)
        else:
            self.show_beginning()
        self.count()
        return tunnel.on_tap(self)

    cdef int finish(self, Stream sink) except -1:
        # nobody has decided about what is left
        self.stop_deciding()
        PyByteArray_Resize(self.kept, 0)
        self.rest = None
        self.is_behind = False
        return self.count()

    cdef int stop_deciding(self) except -1:
        self.refuse_injections("the WebSocket is over")
        if self.patience is not None:
            self.patience.clear()
        self.is_waiting = False
        return self.judge.give_up()

    cdef int stop(self) except -1:
        MessageTap.stop(self)
        self.sink = None
        self.kept = bytearray()
        self.payload = self.came = None
        self.end_error = None
        if not self.judge.is_pending():
            # it refers to us
            self.judge.owner = None
        return self.count()

    # ---- octets

    cdef Py_ssize_t size_held(self) noexcept:
        return MessageTap.size_held(self) + PyByteArray_GET_SIZE(self.kept)

    cdef Py_ssize_t control_size(self) noexcept:
        if self.reader.is_in_frame and self.reader.frames.head.bits & BIT_CONTROL:
            return <Py_ssize_t>(self.reader.at - self.reader.frame_begin)
        return 0

    cdef int keep(self, const char* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t size = PyByteArray_GET_SIZE(self.kept)
        if n:
            PyByteArray_Resize(self.kept, size + n)
            memcpy(PyByteArray_AS_STRING(self.kept) + size, p, n)
        return 0

    cdef int send_kept(self, Py_ssize_t begin, Py_ssize_t count) except -1:
        return self.sink.send_content(PyByteArray_AS_STRING(self.kept) + begin, count) if count else 0

    cdef int cut_kept(self, Py_ssize_t begin, Py_ssize_t count) except -1:
        cdef Py_ssize_t left = PyByteArray_GET_SIZE(self.kept) - begin - count
        cdef char* p = PyByteArray_AS_STRING(self.kept) + begin
        memmove(p, p + count, left)
        PyByteArray_Resize(self.kept, begin + left)
        return 0

    cdef int send_frame(self, bytes frame) except -1:
        return self.sink.send_content(PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame))


cdef MessageFilter new_message_filter(
        Settings settings, BudgetShare share, bint from_client, const Agreement* agreement, bint asks, MessageTerms terms):
    cdef MessageFilter filtered = MessageFilter.__new__(MessageFilter)
    open_tap(filtered, settings, share, from_client, agreement, SHOW_LONG)
    filtered.judge = new_chunk_judge(settings, filtered)
    filtered.kinds = settings.hooks.filtered if asks else 0
    filtered.terms = terms
    filtered.kept = bytearray()
    if agreement.compresses:
        filtered.windows = Windows(
            agreement.client_bits if from_client else agreement.upstream_bits,
            agreement.client_takeover if from_client else agreement.upstream_takeover, settings.websocket_recompresses)
    return filtered
