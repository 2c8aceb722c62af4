"""Cut newline-delimited JSON into lines, and JSON text sequences (RFC 7464) into texts.

What is in a line is not looked at: a chunk's payload is the line without its LF or CRLF. A text of a sequence may have line feeds in it, so
its brackets and strings are counted: it ends at a line feed behind all of them, or where the next one begins.
"""

import cython

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memchr

from soth_mitm._dataplane.wire.framer cimport Framer, append_bytes, only_bytes
from soth_mitm._dataplane.http.messages cimport StreamChunk, new_chunk

from soth_mitm._dataplane.http.messages import FrameKind


cdef enum:
    CR = 13
    LF = 10
    RS = 30
    # beyond the budget a line may have its CR, and one more byte shows that it is too long
    LINE_SLACK = 2


cdef inline bint is_blank(const char* line, Py_ssize_t length) noexcept nogil:
    """Tell whether there is nothing but JSON's white space (RFC 8259 section 2)."""
    cdef Py_ssize_t at
    for at in range(length):
        if line[at] != b" " and line[at] != b"\t" and line[at] != b"\r" and line[at] != LF:
            return False
    return True


@cython.final
cdef class NdjsonFramer(Framer):
    """Framer of NDJSON lines. Blank lines are skipped; the last line is delivered at the end of the stream even without its LF."""

    def __cinit__(self, budget):
        self.kind = FrameKind.NDJSON_LINE
        self.line = bytearray()

    cdef Py_ssize_t feed(self, const char* data, Py_ssize_t length, list out) except -1:
        cdef const char* at = data
        cdef const char* end = data + length
        cdef const char* lf
        self.at_border = False
        while at < end:
            lf = <const char*>memchr(at, LF, end - at)
            if lf == NULL:
                self.keep_partial(at, end - at)
                break
            if PyByteArray_GET_SIZE(self.line) > 0:
                self.keep_partial(at, lf - at)
                self.finish(out)
            else:
                self.end_line(at, lf - at, out)
            at = lf + 1
            if self.single:
                self.at_border = True
                return at - data
        return length

    cdef Py_ssize_t unfinished(self) noexcept:
        return PyByteArray_GET_SIZE(self.line)

    cdef int finish(self, list out) except -1:
        if PyByteArray_GET_SIZE(self.line) > 0:
            self.end_line(PyByteArray_AS_STRING(self.line), PyByteArray_GET_SIZE(self.line), out)
            PyByteArray_Resize(self.line, 0)
        return 0

    cdef int keep_partial(self, const char* data, Py_ssize_t length) except -1:
        return append_bytes(self.line, data, min(length, self.most + LINE_SLACK - PyByteArray_GET_SIZE(self.line)))

    cdef int end_line(self, const char* line, Py_ssize_t length, list out) except -1:
        """Deliver a line, its LF excluded."""
        # Judge only what keep_partial would have kept, so that the split of the reads decides nothing
        cdef Py_ssize_t most = self.most
        self.most = self.budget
        length = min(length, most + LINE_SLACK)
        if is_blank(line, length):
            return 0
        if line[length - 1] == CR:
            length -= 1
        out.append(new_chunk(PyBytes_FromStringAndSize(line, min(length, most)), self.kind, length > most))
        return 0

    cdef StreamChunk peek(self):
        return new_chunk(bytes(self.line[:self.budget]), self.kind, True)

    cdef bytes rewritten(self, bytes unit, tuple payloads):
        # the last line of a stream may be without its end
        cdef bytes end = unit[len(unit.rstrip(b"\r\n")):] if unit.endswith(b"\n") else b""
        for payload in only_bytes(payloads, "a line of NDJSON"):
            if b"\n" in payload:
                raise ValueError("replace: a line of NDJSON has no line feed in it; write the JSON on one line")
            if is_blank(payload, len(payload)):
                raise ValueError("replace: an empty line is none to readers of NDJSON; DROP leaves it out")
        return (end or b"\n").join(payloads) + end


@cython.final
cdef class JsonSeqFramer(Framer):
    """Framer of the texts of a JSON text sequence; white space around a text is left out."""

    def __cinit__(self, budget):
        self.kind = FrameKind.NDJSON_LINE
        self.text = bytearray()

    cdef Py_ssize_t feed(self, const char* data, Py_ssize_t length, list out) except -1:
        cdef Py_ssize_t at, start = 0
        cdef char byte
        self.at_border = False
        for at in range(length):
            byte = data[at]
            if byte == RS or (byte == LF and self.begun and self.depth <= 0 and not self.in_string):
                self.keep(data + start, at - start)
                start = at + 1
                if self.single and (self.begun or byte == LF):
                    # an RS belongs to the text that it begins
                    self.at_border = True
                    self.end_text(out)
                    return at if byte == RS else start
                self.end_text(out)
            elif self.in_string:
                if self.escaped or byte == c"\\":
                    self.escaped = not self.escaped
                elif byte == c'"':
                    self.in_string = False
            elif byte == c'"':
                self.in_string = self.begun = True
            elif byte == c"{" or byte == c"[":
                self.depth += 1
                self.begun = True
            elif byte == c"}" or byte == c"]":
                self.depth -= 1
                self.begun = True
            elif byte != c" " and byte != c"\t" and byte != c"\r" and byte != LF:
                self.begun = True
        self.keep(data + start, length - start)
        return length

    cdef Py_ssize_t unfinished(self) noexcept:
        return PyByteArray_GET_SIZE(self.text)

    cdef int finish(self, list out) except -1:
        return self.end_text(out)

    cdef int keep(self, const char* data, Py_ssize_t length) except -1:
        if PyByteArray_GET_SIZE(self.text) == 0:
            while length > 0 and is_blank(data, 1):
                data += 1
                length -= 1
        cdef Py_ssize_t room = self.most - PyByteArray_GET_SIZE(self.text)
        if length > room:
            self.truncated = self.truncated or not is_blank(data + room, length - room)
            length = room
        return append_bytes(self.text, data, length)

    cdef int end_text(self, list out) except -1:
        cdef Py_ssize_t length = PyByteArray_GET_SIZE(self.text)
        cdef const char* text = PyByteArray_AS_STRING(self.text)
        cdef bint truncated = self.truncated
        self.truncated = False
        self.most = self.budget
        self.depth = 0
        self.in_string = self.escaped = self.begun = False
        while length > 0 and is_blank(text + length - 1, 1) and not truncated:
            length -= 1
        if length > 0:
            out.append(new_chunk(PyBytes_FromStringAndSize(text, length), self.kind, truncated))
        PyByteArray_Resize(self.text, 0)
        return 0

    cdef StreamChunk peek(self):
        return new_chunk(bytes(self.text[:self.budget]), self.kind, True)

    cdef bytes rewritten(self, bytes unit, tuple payloads):
        for payload in only_bytes(payloads, "a text of a JSON text sequence"):
            if b"\x1e" in payload:
                raise ValueError("replace: a text of a JSON text sequence has no RS in it (RFC 7464 section 2)")
            if is_blank(payload, len(payload)):
                raise ValueError("replace: an empty text is none to readers of a JSON text sequence; DROP leaves it out")
        return b"".join([b"\x1e" + payload + b"\n" for payload in payloads])
