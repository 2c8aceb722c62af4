"""Frames of WebSocket (RFC 6455 section 5): what a head may be, and which may follow which.

A reader takes the octets of one direction where they lie, copies none and reserves nothing: a frame
of 2 ** 63 - 1 octets is as cheap as an empty one. Heads are judged octet by octet.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from soth_mitm._dataplane.memory.transitions cimport next_state, transitions_of
from soth_mitm._dataplane.websocket.payload cimport SOTH_UTF8_BORDER, soth_mask, soth_utf8
from soth_mitm._dataplane.websocket.violations cimport (
    CLOSE_CODE, CLOSE_LENGTH, CLOSE_REASON, COMPRESSED_BIT, CONTROL_FRAGMENT, CONTROL_LENGTH,
    LENGTH_FORM, LENGTH_RANGE, MASKED, NO_START, NO_VIOLATION, RESERVED_BIT, RESERVED_OPCODE,
    UNFINISHED, UNMASKED,
)

FRAMES_STATE_NAMES = ("open", "message", "closing")
FRAMES_INPUT_NAMES = ("whole", "first", "middle", "last", "control", "close")

# A row for each state, a column for each input, in the order of the enums. Behind a Close no head
# is read.
cdef const char* TABLE = b"01xx02" b"xx1012" b"xxxxxx"

cdef enum:
    BIT_MASKED = 0x80          # of the second octet of a head
    BITS_LENGTH = 0x7f
    LENGTH_16 = 126
    LENGTH_64 = 127


cdef inline int frames_input(int bits) noexcept nogil:
    cdef int opcode = bits & BITS_OPCODE
    if opcode == OPCODE_CLOSE:
        return INPUT_CLOSE
    if opcode & BIT_CONTROL:
        return INPUT_CONTROL
    if opcode == OPCODE_CONTINUATION:
        return INPUT_LAST if bits & BIT_FIN else INPUT_MIDDLE
    return INPUT_WHOLE if bits & BIT_FIN else INPUT_FIRST


cdef inline uint64_t read_number(const uint8_t* p, int octets) noexcept nogil:
    cdef uint64_t number = 0
    cdef int i
    for i in range(octets):
        number = number << 8 | p[i]
    return number


@cython.final
cdef class FrameReader:
    """Reader of the frames of one direction."""

    def __cinit__(self, bint from_client, bint may_compress=False, bint is_foreign=False):
        self.from_client = from_client
        self.may_compress = may_compress
        self.is_foreign = is_foreign

    cdef int refuse(self, int violation) noexcept nogil:
        self.violation = violation
        return -1

    cdef int read_head(self, const char* p, Py_ssize_t n, int* following) noexcept nogil:
        cdef const uint8_t* octets = <const uint8_t*>p
        cdef int bits, opcode, short_length, extended, size
        cdef uint64_t length
        if n < 1:
            return 0
        bits = octets[0]
        opcode = bits & BITS_OPCODE
        if not self.is_foreign:
            if bits & BITS_RESERVED:
                return self.refuse(RESERVED_BIT)
            if bits & BIT_COMPRESSED and not (
                    self.may_compress and (opcode == OPCODE_TEXT or opcode == OPCODE_BINARY)):
                return self.refuse(COMPRESSED_BIT)
        if opcode > OPCODE_PONG or OPCODE_BINARY < opcode < OPCODE_CLOSE:
            return self.refuse(RESERVED_OPCODE)
        if opcode & BIT_CONTROL and not bits & BIT_FIN:
            return self.refuse(CONTROL_FRAGMENT)
        following[0] = next_state(TABLE, FRAMES_INPUTS, self.state, frames_input(bits))
        if following[0] < 0:
            return self.refuse(NO_START if opcode == OPCODE_CONTINUATION else UNFINISHED)
        if n < 2:
            return 0
        if self.from_client and not octets[1] & BIT_MASKED:
            return self.refuse(UNMASKED)
        if octets[1] & BIT_MASKED and not self.from_client:
            return self.refuse(MASKED)
        short_length = octets[1] & BITS_LENGTH
        if opcode & BIT_CONTROL and short_length > LONGEST_CONTROL:
            return self.refuse(CONTROL_LENGTH)
        extended = 0 if short_length < LENGTH_16 else 2 if short_length == LENGTH_16 else 8
        if n < 2 + extended:
            return 0
        length = <uint64_t>short_length
        if extended:
            length = read_number(octets + 2, extended)
            # unsigned: the highest bit of 64 is no sign
            if length >> 63:
                return self.refuse(LENGTH_RANGE)
            if length < LENGTH_16 or (extended == 8 and length < 0x10000):
                return self.refuse(LENGTH_FORM)
        size = 2 + extended
        if self.from_client:
            if n < size + 4:
                return 0
            memcpy(self.head.key, p + size, 4)
            size += 4
        self.head.bits = <uint8_t>bits
        self.head.length = length
        self.head.is_masked = self.from_client
        return size

    cdef int next(self, const char* p, Py_ssize_t n, Py_ssize_t* used) noexcept nogil:
        cdef int size, following = 0
        used[0] = 0
        if self.violation:
            return STEP_VIOLATION
        if self.left:
            if n == 0:
                return STEP_MORE
            # compared as unsigned numbers: what is announced may be more than a Py_ssize_t holds
            used[0] = n if <uint64_t>n < self.left else <Py_ssize_t>self.left
            self.phase = (self.head.length - self.left) & 3
            self.left -= <uint64_t>used[0]
            return STEP_PAYLOAD
        if self.state == FRAMES_CLOSING:
            used[0] = n
            return STEP_IGNORED if n else STEP_MORE
        size = self.read_head(p, n, &following)
        if size < 0:
            return STEP_VIOLATION
        if size == 0:
            return STEP_MORE
        self.state = following
        self.left = self.head.length
        used[0] = size
        return STEP_HEAD

    cdef bytes unmasked(self, const char* p, Py_ssize_t n):
        cdef bytes octets
        if not self.head.is_masked:
            return PyBytes_FromStringAndSize(p, n)
        # of NULL: of octets that are given, one octet would be an object that all Python shares
        octets = PyBytes_FromStringAndSize(NULL, n)
        soth_mask(PyBytes_AS_STRING(octets), p, n, self.head.key, self.phase)
        return octets

    def steps(self, bytes data not None):
        """Read what lies in `data`: (steps, octets taken).

        A step is ("head", FIN, RSV and opcode, octets of payload, key or b""), ("payload", 0,
        phase, unmasked octets), or ("ignored", 0, octets, b"").
        """
        cdef const char* p = PyBytes_AS_STRING(data)
        cdef Py_ssize_t n = len(data), at = 0, used = 0
        cdef list found = []
        cdef bytes octets
        cdef int step
        while True:
            step = self.next(p + at, n - at, &used)
            if step == STEP_HEAD:
                found.append(("head", self.head.bits, self.head.length,
                              self.head.key[:4] if self.head.is_masked else b""))
            elif step == STEP_PAYLOAD:
                octets = self.unmasked(p + at, used)
                found.append(("payload", 0, self.phase, octets))
            elif step == STEP_IGNORED:
                found.append(("ignored", 0, used, b""))
            else:
                return found, at
            at += used


cdef int write_frame_head(char* out, int bits, uint64_t length, const char* key) noexcept nogil:
    cdef int masked = 0 if key == NULL else BIT_MASKED
    cdef int size = 2, octets = 0
    out[0] = <char>bits
    if length < LENGTH_16:
        out[1] = <char>(masked | <int>length)
    else:
        octets = 2 if length < 0x10000 else 8
        out[1] = <char>(masked | (LENGTH_16 if octets == 2 else LENGTH_64))
    while octets:
        octets -= 1
        out[size] = <char>(length >> 8 * octets)
        size += 1
    if key != NULL:
        memcpy(out + size, key, 4)
        size += 4
    return size


cdef int close_violation(const char* p, Py_ssize_t n) noexcept nogil:
    cdef int code
    if n == 0:
        return NO_VIOLATION
    if n == 1:
        return CLOSE_LENGTH
    code = <int>read_number(<const uint8_t*>p, 2)
    # RFC 6455 section 7.4 and IANA's registry: 1012 to 1014 have been given out since, 1004 never
    # was, and 1005, 1006 and 1015 stand for Closes that did not come
    if code < 1000 or 1004 <= code <= 1006 or 1015 <= code < 3000 or code >= 5000:
        return CLOSE_CODE
    if soth_utf8(SOTH_UTF8_BORDER, p + 2, n - 2) != SOTH_UTF8_BORDER:
        return CLOSE_REASON
    return NO_VIOLATION


def make_frame_head(int bits, uint64_t length, bytes key not None=b""):
    """Return the head of a frame. `bits` are FIN, RSV and opcode; `key` has no octets or four."""
    cdef char head[LONGEST_HEAD]
    if len(key) not in (0, 4):
        raise ValueError("a key has four octets")
    return head[:write_frame_head(head, bits, length, PyBytes_AS_STRING(key) if key else NULL)]


def judge_close(bytes payload not None):
    """Return what is wrong with the payload of a Close, an index of VIOLATION_NAMES; 0: nothing."""
    return close_violation(payload, len(payload))


def frames_transitions():
    """Return {state: {input: state that follows}}. An input that is missing is a violation."""
    return transitions_of(TABLE, FRAMES_STATE_NAMES, FRAMES_INPUT_NAMES)
