"""Cut ``text/event-stream`` into events, by the rules that browsers follow (WHATWG HTML, section 9.2.6).

Lines end with CR, LF or CRLF. The value of an event that arrives within one feed is copied once, into its chunk; only what a feed leaves
unfinished is copied into buffers of the framer. A chunk's payload is the bytes of the data lines joined by LF, not decoded.
"""

import cython

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memchr, memcmp

from soth_mitm._dataplane.wire.framer cimport Framer, append_bytes
from soth_mitm._dataplane.http.messages cimport StreamChunk, new_chunk
from soth_mitm._dataplane.memory.view cimport view_bytes, view_of

from soth_mitm._dataplane.http.messages import FrameKind


cdef enum:
    CR = 13
    LF = 10
    # the longest that may stand before a value: byte order mark, `event: ` or `retry: `; and one byte to see that a value is too long
    LINE_SLACK = 3 + 7 + 1


cdef inline const char* find_byte(const char* start, const char* end, int byte) noexcept nogil:
    """Return where `byte` stands first, or `end`."""
    cdef const char* found = <const char*>memchr(start, byte, end - start)
    return end if found == NULL else found


cdef inline bint is_name(const char* name, Py_ssize_t length, const char* expected, Py_ssize_t expected_len) noexcept nogil:
    return length == expected_len and memcmp(name, expected, expected_len) == 0


@cython.final
cdef class SseFramer(Framer):
    """Framer of server-sent events.

    A chunk's `event_type` is ``"message"`` unless the event names one, `event_id` the last id that the stream has set (None: none yet),
    `retry` the reconnection time in milliseconds when the stream set one since the chunk before.
    """

    def __cinit__(self, budget):
        self.kind = FrameKind.SSE_DATA
        self.line = bytearray()
        self.data = bytearray()
        self.first_line = True

    cdef int feed(self, const char* data, Py_ssize_t length, list out) except -1:
        cdef const char* at = data
        cdef const char* end = data + length
        # Where the next CR and LF stand; each byte is searched once for either, whichever of them the stream uses
        cdef const char* cr = NULL
        cdef const char* lf = NULL
        if length == 0:
            return 0
        # Never set here, unless an exception left the last feed
        self.held = view_of(NULL, 0)
        if self.after_cr and at[0] == LF:
            at += 1
        self.after_cr = False
        while at < end:
            if lf < at:
                lf = find_byte(at, end, LF)
            if cr < at:
                cr = find_byte(at, lf, CR)
            if cr == end:
                break
            if PyByteArray_GET_SIZE(self.line) > 0:
                self.keep_partial(at, cr - at)
                self.end_line(PyByteArray_AS_STRING(self.line), PyByteArray_GET_SIZE(self.line), out)
                self.copy_held()
                PyByteArray_Resize(self.line, 0)
            else:
                self.end_line(at, cr - at, out)
            at = cr + 1
            if cr < lf:
                if at == end:
                    self.after_cr = True
                elif at == lf:
                    at += 1
        self.copy_held()
        self.keep_partial(at, end - at)
        return 0

    cdef Py_ssize_t unfinished(self) noexcept:
        return PyByteArray_GET_SIZE(self.line) + PyByteArray_GET_SIZE(self.data)

    cdef int finish(self, list out) except -1:
        """Deliver an event that came without its blank line, as incomplete: it may have been cut, and models say there what they cost.

        Of a line without its end only data is of use: half an id or a type would be another one.
        """
        cdef Py_ssize_t length = PyByteArray_GET_SIZE(self.line)
        cdef Py_ssize_t before = len(out)
        self.held = view_of(NULL, 0)
        if self.first_line and self.line[:3] == b"\xEF\xBB\xBF":
            self.line = self.line[3:]
            length -= 3
        if length >= 5 and memcmp(PyByteArray_AS_STRING(self.line), b"data:", 5) == 0:
            self.first_line = False
            self.end_line(PyByteArray_AS_STRING(self.line), length, out)
        self.copy_held()
        PyByteArray_Resize(self.line, 0)
        self.dispatch(out)
        if len(out) > before:
            (<StreamChunk>out[before]).complete = False
        return 0

    cdef int keep_partial(self, const char* data, Py_ssize_t length) except -1:
        """Keep of an unfinished line what can still matter: enough to fill the event, and to see that a field is too long."""
        cdef Py_ssize_t room = max(self.budget - PyByteArray_GET_SIZE(self.data), MAX_FIELD) + LINE_SLACK
        return append_bytes(self.line, data, min(length, room - PyByteArray_GET_SIZE(self.line)))

    cdef int end_line(self, const char* line, Py_ssize_t length, list out) except -1:
        """Act upon a whole line, its end excluded."""
        cdef const char* colon
        cdef Py_ssize_t name_len
        if self.first_line:
            self.first_line = False
            if length >= 3 and memcmp(line, b"\xEF\xBB\xBF", 3) == 0:
                line += 3
                length -= 3
        if length == 0:
            return self.dispatch(out)
        # A name longer than `event` and `retry` is none of ours: the colon is looked for where theirs would be
        colon = <const char*>memchr(line, b":", min(length, 6))
        if colon == NULL:
            return self.take_field(line, length, line, 0)
        name_len = colon - line
        length -= name_len + 1
        if length > 0 and colon[1] == b" ":
            return self.take_field(line, name_len, colon + 2, length - 1)
        return self.take_field(line, name_len, colon + 1, length)

    cdef int take_field(self, const char* name, Py_ssize_t name_len, const char* value, Py_ssize_t length) except -1:
        if is_name(name, name_len, "data", 4):
            return self.add_data(value, length)
        if is_name(name, name_len, "event", 5):
            if length > MAX_FIELD:
                self.error_count += 1
            else:
                self.event_type = PyBytes_FromStringAndSize(value, length)
        elif is_name(name, name_len, "id", 2):
            if length > MAX_FIELD:
                self.error_count += 1
            elif memchr(value, 0, length) == NULL:
                self.last_event_id = value[:length].decode("utf-8", "replace")
        elif is_name(name, name_len, "retry", 5):
            if length > MAX_RETRY_DIGITS:
                self.error_count += 1
            elif value[:length].isdigit():
                self.retry = int(value[:length])
        return 0

    cdef int add_data(self, const char* value, Py_ssize_t length) except -1:
        """Add a data line to the event, as much of it as the budget allows."""
        cdef Py_ssize_t room = self.budget
        if not self.has_data:
            self.has_data = True
            self.truncated = length > room
            self.held = view_of(value, min(length, room))
            return 0
        if self.truncated:
            return 0
        self.copy_held()
        room -= PyByteArray_GET_SIZE(self.data)
        if room < 1 + length:
            self.truncated = True
        if room > 0:
            append_bytes(self.data, "\n", 1)
            append_bytes(self.data, value, min(length, room - 1))
        return 0

    cdef int copy_held(self) except -1:
        """Copy the borrowed value before its bytes go away."""
        if self.held.ptr != NULL:
            append_bytes(self.data, self.held.ptr, self.held.len)
            self.held = view_of(NULL, 0)
        return 0

    cdef int dispatch(self, list out) except -1:
        """A blank line ends the event; without data there is none."""
        cdef StreamChunk chunk
        cdef bytes event_type = self.event_type
        self.event_type = None
        if not self.has_data:
            return 0
        chunk = new_chunk(view_bytes(self.held) if self.held.ptr != NULL else bytes(self.data), self.kind, self.truncated)
        chunk.event_type = event_type.decode("utf-8", "replace") if event_type else "message"
        chunk.event_id = self.last_event_id
        chunk.retry = self.retry
        self.held = view_of(NULL, 0)
        if PyByteArray_GET_SIZE(self.data) > 0:
            PyByteArray_Resize(self.data, 0)
        self.has_data = self.truncated = False
        self.retry = None
        out.append(chunk)
        return 0
