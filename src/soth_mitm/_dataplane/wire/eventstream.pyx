"""Cut ``application/vnd.amazon.eventstream`` into its messages: prelude, headers, payload, and a CRC-32 of each part.

A chunk's payload is that of the message, its `event_type` the header ``:event-type``, or ``:exception-type`` or ``:error-code`` where that
is missing. A message whose checksum is wrong is counted and not delivered. A prelude that is wrong ends the framing: where the next message
begins is not known then.
"""

from zlib import crc32

import cython

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t

from soth_mitm._dataplane.wire.framer cimport Framer, append_bytes, only_bytes
from soth_mitm._dataplane.http.messages cimport StreamChunk, new_chunk

from soth_mitm._dataplane.http.messages import FrameKind


cdef enum:
    TYPE_BYTES = 6
    TYPE_STRING = 7
    TYPE_END = 10

# What a header's value of each type takes; of bytes and strings their length
_SIZES = b"\x00\x00\x01\x02\x04\x08\x02\x02\x08\x10"

# What the format's readers take (24 MiB)
_MOST_OF_ONE = 0x1800000

# By which name a message says what it is, the first of them that it has
_NAMES = (b":event-type", b":exception-type", b":error-code")


cdef inline uint32_t number(const char* bytes_of_it) noexcept nogil:
    cdef const uint8_t* byte = <const uint8_t*>bytes_of_it
    return (<uint32_t>byte[0] << 24) | (<uint32_t>byte[1] << 16) | (<uint32_t>byte[2] << 8) | byte[3]


@cython.final
cdef class EventStreamFramer(Framer):
    """Framer of the messages of an event stream of AWS."""

    def __cinit__(self, budget):
        self.kind = FrameKind.EVENTSTREAM_MESSAGE
        self.held = bytearray()
        self.tail = bytearray()

    cdef Py_ssize_t feed(self, const char* data, Py_ssize_t length, list out) except -1:
        cdef const char* begin = data
        cdef Py_ssize_t step, room
        self.at_border = False
        while length > 0 and not self.failed and not (self.at_border and self.single):
            if self.total == 0:
                step = min(length, PRELUDE - PyByteArray_GET_SIZE(self.held))
                append_bytes(self.held, data, step)
                if PyByteArray_GET_SIZE(self.held) == PRELUDE:
                    self.begin()
            elif self.seen < self.total - CHECKSUM:
                step = min(length, <Py_ssize_t>(self.total - CHECKSUM - self.seen))
                self.checksum = crc32((<const uint8_t[:step]><const uint8_t*>data), self.checksum)
                room = PRELUDE + <Py_ssize_t>self.headers + self.most - PyByteArray_GET_SIZE(self.held)
                append_bytes(self.held, data, min(step, room))
                self.seen += <uint32_t>step
            else:
                step = min(length, CHECKSUM - PyByteArray_GET_SIZE(self.tail))
                append_bytes(self.tail, data, step)
                if PyByteArray_GET_SIZE(self.tail) == CHECKSUM:
                    self.deliver(out)
                    self.at_border = True
            data += step
            length -= step
        return data - begin

    cdef Py_ssize_t unfinished(self) noexcept:
        return PyByteArray_GET_SIZE(self.held)

    cdef int finish(self, list out) except -1:
        if PyByteArray_GET_SIZE(self.held) > 0 and not self.failed:
            self.error_count += 1
        return 0

    cdef int begin(self) except -1:
        """Read the prelude; what it says is what is relied on for where the message ends."""
        cdef const char* prelude = PyByteArray_AS_STRING(self.held)
        self.total = number(prelude)
        self.headers = number(prelude + 4)
        self.checksum = crc32(self.held[:8])
        if (self.checksum != number(prelude + 8) or self.headers > MOST_HEADERS
                or self.total < PRELUDE + CHECKSUM or self.headers > self.total - PRELUDE - CHECKSUM):
            self.error_count += 1
            self.failed = True
            PyByteArray_Resize(self.held, 0)
            return 0
        self.checksum = crc32(self.held)
        self.seen = PRELUDE
        return 0

    cdef int deliver(self, list out) except -1:
        cdef const char* message = PyByteArray_AS_STRING(self.held)
        cdef const char* payload = message + PRELUDE + self.headers
        cdef Py_ssize_t length = PyByteArray_GET_SIZE(self.held) - PRELUDE - self.headers
        cdef StreamChunk chunk
        if self.checksum == number(PyByteArray_AS_STRING(self.tail)):
            chunk = new_chunk(PyBytes_FromStringAndSize(payload, length), self.kind,
                              length < <Py_ssize_t>self.total - PRELUDE - <Py_ssize_t>self.headers - CHECKSUM)
            chunk.event_type = self.event_type(message + PRELUDE, payload)
            out.append(chunk)
        else:
            self.error_count += 1
        self.most = self.budget
        self.total = self.headers = self.seen = 0
        PyByteArray_Resize(self.held, 0)
        PyByteArray_Resize(self.tail, 0)
        return 0

    cdef object event_type(self, const char* at, const char* end):
        """Return what the headers call the message, None when they do not; headers that break the format are counted."""
        cdef Py_ssize_t size
        cdef uint8_t kind
        cdef bytes table = _SIZES
        cdef const uint8_t* sizes = <const uint8_t*>PyBytes_AS_STRING(table)
        cdef dict found = {}
        while at < end:
            size = <uint8_t>at[0]
            if end - at < 1 + size + 1:
                break
            name = at[1:1 + size]
            kind = <uint8_t>at[1 + size]
            at += size + 2
            size = 0 if kind >= TYPE_END else sizes[kind]
            if kind >= TYPE_END or end - at < size:
                at = NULL
                break
            if kind == TYPE_BYTES or kind == TYPE_STRING:
                size = (<uint8_t>at[0] << 8) | <uint8_t>at[1]
                at += 2
                if end - at < size:
                    at = NULL
                    break
            if kind == TYPE_STRING and name in _NAMES:
                found.setdefault(name, at[:size].decode("utf-8", "replace"))
            at += size
        if at != end:
            self.error_count += 1
        for name in _NAMES:
            if name in found:
                return found[name]
        return None

    # ---- for a filter

    cdef StreamChunk peek(self):
        cdef const char* message = PyByteArray_AS_STRING(self.held)
        cdef Py_ssize_t headers_end = PRELUDE + self.headers
        cdef StreamChunk chunk
        if PyByteArray_GET_SIZE(self.held) < headers_end:
            return new_chunk(b"", self.kind, True)
        chunk = new_chunk(bytes(self.held[headers_end:]), self.kind, True)
        chunk.event_type = self.event_type(message + PRELUDE, message + headers_end)
        return chunk

    cdef bytes rewritten(self, bytes unit, tuple payloads):
        cdef bytes headers = unit[PRELUDE:PRELUDE + number(PyBytes_AS_STRING(unit) + 4)]
        cdef list out = []
        for payload in only_bytes(payloads, "a message of AWS"):
            if len(payload) > _MOST_OF_ONE:
                raise ValueError(f"replace: a message of AWS has {_MOST_OF_ONE} bytes at most, got {len(payload)}")
            prelude = (PRELUDE + len(headers) + len(payload) + CHECKSUM).to_bytes(4, "big") + len(headers).to_bytes(4, "big")
            message = prelude + crc32(prelude).to_bytes(4, "big") + headers + payload
            out.append(message + crc32(message).to_bytes(4, "big"))
        return b"".join(out)
