"""Cut ``text/event-stream`` into events, by the rules that browsers follow (WHATWG HTML, section 9.2.6).

Lines end with CR, LF or CRLF. The value of an event that arrives within one feed is copied once, into its chunk; only what a feed leaves
unfinished is copied into buffers of the framer. A chunk's payload is the bytes of the data lines joined by LF, not decoded.

A filter holds an event until it is decided on. What its client reads has to be what was decided on, whatever that client takes for the end
of a line: so an event that readers read in several ways leaves in a spelling that they all read as the standard does.
"""

import cython

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
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


# What ends a line or a text to some readers
_UNCLEAR = dict.fromkeys((0, 0x0B, 0x0C, 0x1C, 0x1D, 0x1E, 0x85, 0x2028, 0x2029), "\N{REPLACEMENT CHARACTER}")

cdef const char* BOM = b"\xEF\xBB\xBF"


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

    cdef Py_ssize_t feed(self, const char* data, Py_ssize_t length, list out) except -1:
        cdef const char* at = data
        cdef const char* end = data + length
        # Where the next CR and LF stand; each byte is searched once for either, whichever of them the stream uses
        cdef const char* cr = NULL
        cdef const char* lf = NULL
        if length == 0:
            return 0
        # Never set here, unless an exception left the last feed
        self.held = view_of(NULL, 0)
        self.at_border = False
        if self.mark >= 0 and self.single:
            at += self.take_mark(data, length)
            if self.at_border or at == end:
                return at - data
        if self.cr_waits:
            self.cr_waits = False
            if at[0] == LF:
                at += 1
            self.end_kept_line(out)
            if self.at_border:
                return at - data
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
            if self.single and cr < lf and cr + 1 == end:
                self.copy_held()
                self.keep_partial(at, cr - at)
                self.cr_waits = True
                return length
            if PyByteArray_GET_SIZE(self.line) > 0:
                self.keep_partial(at, cr - at)
                self.end_kept_line(out)
            else:
                self.end_line(at, cr - at, out)
            at = cr + 1
            if cr < lf:
                if at == end:
                    self.after_cr = True
                elif at == lf:
                    at += 1
            if self.at_border and self.single:
                self.copy_held()
                return at - data
        self.copy_held()
        self.keep_partial(at, end - at)
        return length

    cdef Py_ssize_t take_mark(self, const char* data, Py_ssize_t length) except -1:
        """Take what may be the byte order mark at the beginning of the stream, a unit of its own."""
        cdef Py_ssize_t taken = 0
        cdef const char* mark = BOM
        while taken < length and self.mark < 3 and data[taken] == mark[self.mark]:
            self.mark += 1
            taken += 1
        if self.mark < 3 and taken == length:
            return taken
        self.at_border = self.mark == 3
        if not self.at_border:
            # it is the beginning of a line
            append_bytes(self.line, mark, self.mark)
        self.first_line = False
        self.mark = -1
        return taken

    cdef int end_kept_line(self, list out) except -1:
        self.end_line(PyByteArray_AS_STRING(self.line), PyByteArray_GET_SIZE(self.line), out)
        self.copy_held()
        PyByteArray_Resize(self.line, 0)
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
        if self.cr_waits:
            self.end_kept_line(out)
            length = 0
        if self.first_line and self.line[:3] == BOM:
            self.line = self.line[3:]
            length -= 3
        if length >= 5 and memcmp(PyByteArray_AS_STRING(self.line), b"data:", 5) == 0:
            self.first_line = False
            self.end_line(PyByteArray_AS_STRING(self.line), length, out)
        self.copy_held()
        PyByteArray_Resize(self.line, 0)
        if len(out) > before:
            # the CR that was waited for has ended it
            return 0
        self.dispatch(out)
        if len(out) > before:
            (<StreamChunk>out[before]).complete = False
        return 0

    cdef int keep_partial(self, const char* data, Py_ssize_t length) except -1:
        """Keep of an unfinished line what can still matter: enough to fill the event, and to see that a field is too long."""
        cdef Py_ssize_t room = max(self.most - PyByteArray_GET_SIZE(self.data), MAX_FIELD) + LINE_SLACK
        return append_bytes(self.line, data, min(length, room - PyByteArray_GET_SIZE(self.line)))

    cdef int end_line(self, const char* line, Py_ssize_t length, list out) except -1:
        """Act upon a whole line, its end excluded."""
        cdef const char* colon
        cdef Py_ssize_t name_len
        if self.first_line:
            self.first_line = False
            if length >= 3 and memcmp(line, BOM, 3) == 0:
                line += 3
                length -= 3
        if length == 0:
            self.at_border = True
            self.in_block = False
            return self.dispatch(out)
        if line[0] == b":":
            # a comment; one that stands before all fields of a block is a unit by itself
            self.at_border = not self.in_block
            if self.at_border:
                self.most = self.budget
            return 0
        self.at_border = False
        self.in_block = True
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
                # readers ignore it, or wait for long: for a filter no reason to cut the stream
                self.error_count += not self.single
            elif value[:length].isdigit():
                self.retry = int(value[:length])
        return 0

    cdef int add_data(self, const char* value, Py_ssize_t length) except -1:
        """Add a data line to the event, as much of it as the budget allows."""
        cdef Py_ssize_t room = self.most
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
        self.most = self.budget
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

    # ---- for a filter

    cdef StreamChunk peek(self):
        cdef bytes payload = bytes(self.data)
        cdef bytes line = bytes(self.line)
        cdef StreamChunk chunk
        if line[:5] == b"data:":
            payload += (b"\n" if self.has_data else b"") + line[5 + (line[5:6] == b" "):]
        chunk = new_chunk(payload[:self.budget], self.kind, True)
        chunk.event_type = self.event_type.decode("utf-8", "replace") if self.event_type else "message"
        chunk.event_id = self.last_event_id
        chunk.retry = self.retry
        return chunk

    cdef bint is_odd(self, const char* unit, Py_ssize_t length) noexcept:
        return is_read_in_several_ways(unit, length)

    cdef bytes passed(self, bytes unit):
        return canonical_unit(unit) if is_read_in_several_ways(unit, len(unit)) else unit

    cdef bytes rewritten(self, bytes unit, tuple payloads):
        cdef list out = []
        cdef bytes end = b"\n"
        cdef bint is_written = False
        first, *others = payloads
        if type(first) is bytes:
            for line in self.passed(unit).splitlines(True):
                bare = line.rstrip(b"\r\n")
                if not bare:
                    break
                if bare != b"data" and bare[:5] != b"data:":
                    # only of a last event without its end, a line may be without its own
                    out.append(line if len(line) > len(bare) else line + end)
                    continue
                if len(line) > len(bare):
                    end = line[len(bare):]
                if not is_written:
                    is_written = True
                    out.append(data_lines(first, end))
            out.append(end)
        else:
            others = payloads
        for payload in others:
            out.append(data_lines(payload, b"\n") + b"\n" if type(payload) is bytes else event_lines(payload))
        return b"".join(out)


cdef bytes data_lines(bytes payload, bytes end):
    """Return the data lines of an event that has this payload, each with `end`."""
    if b"\r" in payload:
        payload = payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return b"data: " + (payload.replace(b"\n", end + b"data: ") if b"\n" in payload else payload) + end


cdef bytes event_lines(object event):
    """Return an SseEvent as it is sent. Its fields were checked where it was made."""
    cdef list lines = []
    if event.event is not None:
        lines.append(b"event: " + event.event.encode() + b"\n")
    if event.id is not None:
        lines.append(b"id: " + event.id.encode() + b"\n")
    if event.retry is not None:
        lines.append(b"retry: %d\n" % event.retry)
    lines.append(data_lines(event.data, b"\n"))
    lines.append(b"\n")
    return b"".join(lines)


cdef bint is_read_in_several_ways(const char* unit, Py_ssize_t length) noexcept nogil:
    """Tell whether readers may find other lines in a unit than the standard does.

    A CR without LF and a byte order mark at a line's beginning are nothing to some readers, NUL is an end to others. Some end lines at what
    Unicode takes for one: that is nothing new in data, which is shown, and may hide a data line in what is not.
    """
    cdef const char* end = unit + length
    cdef const char* at = unit
    cdef const char* stop
    if memchr(unit, 0, length) != NULL:
        return True
    while True:
        at = <const char*>memchr(at, CR, end - at)
        if at == NULL:
            break
        if at + 1 == end or at[1] != LF:
            return True
        at += 1
    at = unit
    while True:
        at = <const char*>memchr(at, 0xEF, end - at)
        if at == NULL:
            break
        if end - at >= 3 and memcmp(at, BOM, 3) == 0:
            return True
        at += 1
    at = unit
    while at < end:
        stop = find_byte(at, end, LF)
        if (stop - at < 5 or memcmp(at, b"data:", 5) != 0) and has_other_line_end(at, stop):
            return True
        at = stop + 1
    return False


cdef bint has_other_line_end(const char* at, const char* end) noexcept nogil:
    """Tell whether Unicode ends a line between these two: VT, FF, FS, GS, RS, NEL, LS or PS."""
    cdef uint8_t byte
    while at < end:
        byte = <uint8_t>at[0]
        if byte == 0x0B or byte == 0x0C or 0x1C <= byte <= 0x1E:
            return True
        if byte == 0xC2 and end - at >= 2 and <uint8_t>at[1] == 0x85:
            return True
        if byte == 0xE2 and end - at >= 3 and <uint8_t>at[1] == 0x80 and (<uint8_t>at[2] == 0xA8 or <uint8_t>at[2] == 0xA9):
            return True
        at += 1
    return False


cdef bytes canonical_unit(bytes unit):
    """Return a unit with the lines that the standard finds in it, each ended by LF, and none that other readers may take for another one.

    Comments and fields that the standard ignores are left out, but for comments that hold nothing of the kind.
    """
    cdef list out = []
    cdef bytes line, name, value
    if unit == BOM:
        return b""
    for line in unit.replace(b"\r\n", b"\n").replace(b"\r", b"\n").splitlines(True):
        name, _, value = line.rstrip(b"\n").partition(b":")
        value = value.removeprefix(b" ")
        if line == b"\n" or name == b"data":
            out.append(line)
        elif b"\0" not in value and not has_other_line_end(PyBytes_AS_STRING(value), PyBytes_AS_STRING(value) + len(value)):
            if name in (b"", b"event", b"id", b"retry"):
                out.append(line)
        elif name == b"event" or (name == b"id" and b"\0" not in value):
            # another value than what it looks like to some, and than none at all
            value = value.decode("utf-8", "replace").translate(_UNCLEAR).encode()
            out.append(name + b": " + value + b"\n")
    return b"".join(out)
