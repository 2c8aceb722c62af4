"""Messages of one direction of a WebSocket: unmasked, inflated, checked, put together.

A message that lies here in one piece becomes one object, without a copy in between. Any other grows
in one block, however many fragments it has. At most `most` octets of it are kept. The rest is still
inflated, so that later messages can be, and checked.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from soth_mitm._dataplane.websocket.deflate cimport TURN_OCTETS
from soth_mitm._dataplane.websocket.frame cimport (
    BIT_COMPRESSED, BIT_CONTROL, BIT_FIN, BITS_OPCODE, OPCODE_CLOSE, OPCODE_CONTINUATION,
    OPCODE_TEXT, STEP_HEAD, STEP_IGNORED, STEP_PAYLOAD, STEP_VIOLATION, close_violation,
)
from soth_mitm._dataplane.websocket.payload cimport (
    SOTH_UTF8_BORDER, SOTH_UTF8_WRONG, soth_mask, soth_utf8, soth_utf8_whole,
)
from soth_mitm._dataplane.websocket.violations cimport (
    DEFLATE_DATA, NO_VIOLATION, TEXT_NOT_UTF8, TOO_LONG,
)

EVENT_NAMES = (
    "more", "turn", "message", "long", "end", "control", "close", "ignored", "violation",
)

cdef enum:
    SCRATCH = 4096             # octets that are checked and not kept are unmasked so many at a time


@cython.final
cdef class MessageReader:
    """Reader of the messages of one direction.

    `most`: octets of a message that are shown. `may_compress` and `takeover`: what was agreed for
    this direction. `when_long`: a message with more than `most` octets is cut (0), told as soon as
    that is known (1), or a violation (2).
    """

    def __cinit__(self, bint from_client, Py_ssize_t most, bint may_compress=False,
                  bint takeover=True, int when_long=CUT_LONG):
        if most < 1:
            raise ValueError(f"most: a message must be allowed at least one octet, not {most}")
        if not 0 <= when_long < <int>WHEN_LONG:
            raise ValueError(f"when_long: 0, 1 or 2, not {when_long}")
        self.frames = FrameReader(from_client, may_compress)
        self.most = most
        self.takeover = takeover
        self.when_long = when_long
        self.block = bytearray()
        self.begin_turn()

    cdef int next(self, const char* p, Py_ssize_t n, Py_ssize_t* used) except -1:
        cdef Py_ssize_t taken = 0
        cdef int step, event
        used[0] = 0
        self.payload = None
        while True:
            if self.is_untold:
                self.is_untold = False
                self.tell(False)
                return EVENT_LONG
            if self.violation:
                return EVENT_VIOLATION
            if self.message_compressed and self.inflater.is_pending:
                event = self.inflate()
                if event:
                    return event
                continue
            if self.is_in_frame and self.frames.left == 0:
                event = self.end_frame()
                if event:
                    return event
                continue
            if self.message_compressed and self.allowance <= 0:
                # nothing more may be inflated: what lies here has to stay
                return EVENT_TURN
            step = self.frames.next(p + used[0], n - used[0], &taken)
            used[0] += taken
            self.at += <uint64_t>taken
            if step == STEP_HEAD:
                self.frame_begin = self.at - <uint64_t>taken
                self.begin_frame()
            elif step == STEP_PAYLOAD:
                self.take_payload(p + used[0] - taken, taken)
            elif step == STEP_VIOLATION:
                self.refuse(self.frames.violation)
            else:
                return EVENT_IGNORED if step == STEP_IGNORED else EVENT_MORE

    cdef void begin_turn(self) noexcept:
        self.allowance = TURN_OCTETS

    cdef int skip(self) except -1:
        if self.violation == DEFLATE_DATA or self.violation == TOO_LONG:
            self.violation = NO_VIOLATION
        self.is_skipping = True
        self.message_compressed = self.is_untold = self.is_in_message = False
        self.inflater = None
        self.whole = None
        PyByteArray_Resize(self.block, 0)
        return 0

    cdef Py_ssize_t held(self) noexcept:
        cdef Py_ssize_t count = PyByteArray_GET_SIZE(self.block)
        if self.whole is not None:
            count += PyBytes_GET_SIZE(self.whole)
        if self.inflater is not None:
            count += PyBytes_GET_SIZE(self.inflater.rest)
        return count

    cdef int refuse(self, int violation) noexcept:
        self.violation = violation
        return EVENT_VIOLATION

    # ---- frames

    cdef int begin_frame(self) except -1:
        cdef int opcode = self.frames.head.bits & BITS_OPCODE
        self.is_in_frame = True
        if opcode & BIT_CONTROL:
            self.control_size = 0
        elif opcode != OPCODE_CONTINUATION:
            self.message_kind = opcode
            self.message_begin = self.frame_begin
            self.message_compressed = (
                self.frames.head.bits & BIT_COMPRESSED != 0 and not self.is_skipping)
            self.total = 0
            self.is_cut = self.is_shown = False
            self.is_in_message = not self.is_skipping
            self.utf8 = SOTH_UTF8_BORDER
            if self.message_compressed:
                if self.inflater is None:
                    self.inflater = Inflater(self.takeover)
                self.inflater.begin()
        return 0

    cdef int take_payload(self, const char* p, Py_ssize_t n) except -1:
        cdef int opcode = self.frames.head.bits & BITS_OPCODE
        if opcode & BIT_CONTROL:
            if opcode == OPCODE_CLOSE:
                if self.frames.head.is_masked:
                    soth_mask(self.control + self.control_size, p, n, self.frames.head.key,
                              self.frames.phase)
                else:
                    memcpy(self.control + self.control_size, p, n)
                self.control_size += <int>n
            return 0
        if self.is_skipping:
            return 0
        if self.message_compressed:
            return self.inflater.feed(self.frames.unmasked(p, n))
        return self.add_masked(p, n)

    cdef int end_frame(self) except -1:
        """End the frame that has come whole: an event, or 0."""
        if self.frames.head.bits & BIT_CONTROL:
            self.is_in_frame = False
            return self.end_control()
        if not self.frames.head.bits & BIT_FIN or self.is_skipping:
            self.is_in_frame = False
            return 0
        if self.message_compressed and not self.inflater.is_ending:
            self.inflater.end()
            return 0
        self.is_in_frame = False
        return self.end_message()

    cdef int end_control(self) except -1:
        cdef int violation
        self.kind = self.frames.head.bits & BITS_OPCODE
        self.begin = self.frame_begin
        self.end = self.at
        self.is_complete = True
        self.is_compressed = False
        if self.kind != OPCODE_CLOSE:
            return EVENT_CONTROL
        violation = close_violation(self.control, self.control_size)
        if violation:
            return self.refuse(violation)
        self.payload = self.control[:self.control_size]
        return EVENT_CLOSE

    cdef int end_message(self) except -1:
        if self.message_kind == OPCODE_TEXT and self.utf8 != SOTH_UTF8_BORDER:
            return self.refuse(TEXT_NOT_UTF8)
        cdef bint is_shown = self.is_shown
        self.tell(not self.is_cut)
        self.end = self.at
        self.message_compressed = self.is_in_message = False
        if is_shown:
            self.payload = None
        return EVENT_END if is_shown else EVENT_MESSAGE

    cdef int tell(self, bint is_complete) except -1:
        """Make what is kept of the message the payload."""
        if self.whole is not None:
            self.payload = self.whole
            self.whole = None
        else:
            self.payload = PyBytes_FromStringAndSize(
                PyByteArray_AS_STRING(self.block), PyByteArray_GET_SIZE(self.block))
            PyByteArray_Resize(self.block, 0)
        self.kind = self.message_kind
        self.begin = self.message_begin
        self.end = 0
        self.is_complete = is_complete
        self.is_compressed = self.message_compressed
        self.is_shown = True
        return 0

    cdef bint show_beginning(self) except -1:
        if not self.is_in_message or self.is_shown or self.violation:
            return False
        self.stop_keeping()
        self.is_untold = False
        self.tell(False)
        return True

    # ---- payload

    cdef int inflate(self) except -1:
        """Inflate what has been fed: an event, or 0 if that is done or something is to be told."""
        cdef bytes piece
        while self.inflater.is_pending and not self.is_untold:
            if self.allowance <= 0:
                return EVENT_TURN
            piece = self.inflater.take(&self.allowance)
            if piece is None:
                return self.refuse(DEFLATE_DATA)
            self.add_piece(piece)
            if self.violation:
                break
        return EVENT_MORE

    cdef int add_piece(self, bytes piece) except -1:
        """Add octets that were inflated."""
        cdef const char* p = PyBytes_AS_STRING(piece)
        cdef Py_ssize_t n = PyBytes_GET_SIZE(piece), size, kept = self.room_for(n)
        cdef uint64_t room = <uint64_t>self.most * INFLATED_FACTOR - self.total
        cdef bint is_over = <uint64_t>n > room
        if n == 0:
            return 0
        if is_over:
            n = <Py_ssize_t>room
        if self.total == 0 and kept == n:
            self.whole = piece
        elif kept:
            if self.whole is not None:
                self.block += self.whole
                self.whole = None
            size = PyByteArray_GET_SIZE(self.block)
            PyByteArray_Resize(self.block, size + kept)
            memcpy(PyByteArray_AS_STRING(self.block) + size, p, kept)
        self.total += <uint64_t>n
        self.check_text(p, kept)
        if kept < n and not self.violation:
            self.overflow()
        if kept < n and not self.violation:
            self.check_text(p + kept, n - kept)
        return self.refuse(TOO_LONG) if is_over and not self.violation else 0

    cdef int add_masked(self, const char* p, Py_ssize_t n) except -1:
        """Add octets that are not compressed."""
        cdef const char* key = self.frames.head.key
        cdef unsigned int phase = self.frames.phase
        cdef Py_ssize_t size, kept = self.room_for(n)
        cdef char* target
        if (self.total == 0 and kept == n and self.frames.left == 0
                and self.frames.head.bits & BIT_FIN):
            self.whole = self.frames.unmasked(p, n)
            target = PyBytes_AS_STRING(self.whole)
        else:
            size = PyByteArray_GET_SIZE(self.block)
            PyByteArray_Resize(self.block, size + kept)
            target = PyByteArray_AS_STRING(self.block) + size
            if self.frames.head.is_masked:
                soth_mask(target, p, kept, key, phase)
            else:
                memcpy(target, p, kept)
        self.total += <uint64_t>n
        self.check_text(target, kept)
        if kept < n and not self.violation:
            self.overflow()
            self.check_masked(p + kept, n - kept, (phase + <unsigned int>(kept & 3)) & 3)
        return 0

    cdef Py_ssize_t room_for(self, Py_ssize_t n) noexcept:
        """Return how many of n octets more are kept."""
        if self.is_cut:
            return 0
        # nothing was cut, so that all octets so far were kept
        return min(n, self.most - <Py_ssize_t>self.total)

    cdef int check_text(self, const char* p, Py_ssize_t n) noexcept:
        if self.message_kind == OPCODE_TEXT:
            self.utf8 = soth_utf8(self.utf8, p, n)
            if self.utf8 == SOTH_UTF8_WRONG:
                self.refuse(TEXT_NOT_UTF8)
        return 0

    cdef int check_masked(self, const char* p, Py_ssize_t n, unsigned int phase) noexcept:
        cdef char[SCRATCH] scratch
        cdef Py_ssize_t step
        if self.message_kind != OPCODE_TEXT:
            return 0
        if not self.frames.head.is_masked:
            return 0 if self.violation else self.check_text(p, n)
        while n > 0 and not self.violation:
            step = min(n, SCRATCH)
            phase = soth_mask(scratch, p, step, self.frames.head.key, phase)
            self.check_text(scratch, step)
            p += step
            n -= step
        return 0

    cdef int overflow(self) except -1:
        """Deal with a message of which more came than is shown."""
        if not self.is_cut:
            self.is_untold = self.when_long == SHOW_LONG
            if self.when_long == REFUSE_LONG:
                self.refuse(TOO_LONG)
        return self.stop_keeping()

    cdef int stop_keeping(self) except -1:
        """Keep no more of this message. What is kept of a text ends with a whole character."""
        cdef Py_ssize_t size
        if self.is_cut:
            return 0
        self.is_cut = True
        if self.whole is not None:
            self.block += self.whole
            self.whole = None
        size = PyByteArray_GET_SIZE(self.block)
        if self.message_kind == OPCODE_TEXT:
            PyByteArray_Resize(self.block, soth_utf8_whole(
                self.utf8, PyByteArray_AS_STRING(self.block), size))
        return 0

    # ---- for Python

    def read(self, bytes data not None):
        """Take what `data` brings up to the next event: its name, how many octets were taken."""
        cdef Py_ssize_t used = 0
        cdef int event = self.next(PyBytes_AS_STRING(data), len(data), &used)
        return EVENT_NAMES[event], used

    def renew_turn(self):
        """State that a turn of the loop begins, in which TURN_OCTETS may be inflated."""
        self.begin_turn()

    def show_what_came(self):
        """Tell what is here of a message, and keep no more of it. False: there is none."""
        return self.show_beginning()

    def skip_messages(self):
        """Read no messages from here on, only frames."""
        self.skip()

    def held_octets(self):
        """Return how many octets are held of a message."""
        return self.held()
