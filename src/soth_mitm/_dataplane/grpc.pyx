"""Put gRPC messages together from the bytes of a call, however DATA frames or reads cut them (PROTOCOL-HTTP2, "Length-Prefixed-Message").

A message whose compression flag is set is decoded by the call's ``grpc-encoding``. One that cannot be decoded is counted and not delivered:
its bytes would not be the message. A flag other than 0 and 1 means that the position in the stream is lost, so framing stops.
"""

import cython

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t

from soth_mitm._dataplane.decode cimport Decoder, decoder_for
from soth_mitm._dataplane.frames cimport Framer, append_bytes
from soth_mitm._dataplane.messages cimport new_chunk

from soth_mitm._dataplane.messages import FrameKind


cdef inline Py_ssize_t message_length(const char* prefix) noexcept nogil:
    cdef const uint8_t* byte = <const uint8_t*>prefix
    return (<Py_ssize_t>byte[1] << 24) | (<Py_ssize_t>byte[2] << 16) | (<Py_ssize_t>byte[3] << 8) | byte[4]


@cython.final
cdef class GrpcFramer(Framer):
    """Framer of one direction of a gRPC call; `encoding` is the value of its ``grpc-encoding`` header."""

    def __cinit__(self, budget, bytes encoding=None):
        self.kind = FrameKind.GRPC_MESSAGE
        self.encoding = encoding
        self.held = bytearray()

    cdef int feed(self, const char* data, Py_ssize_t length, list out) except -1:
        cdef Py_ssize_t held, step
        while length > 0 and not self.failed:
            if self.skip > 0:
                step = min(self.skip, length)
                self.skip -= step
            elif PyByteArray_GET_SIZE(self.held) == 0 and <uint8_t>data[0] > 1:
                self.error_count += 1
                self.failed = True
                return 0
            elif PyByteArray_GET_SIZE(self.held) == 0 and length >= PREFIX and length >= self.wanted(data):
                # The usual case: the whole frame lies here
                step = self.wanted(data)
                self.deliver(data, step, out)
            else:
                held = PyByteArray_GET_SIZE(self.held)
                step = min(length, (PREFIX if held < PREFIX else self.wanted(PyByteArray_AS_STRING(self.held))) - held)
                append_bytes(self.held, data, step)
                held += step
                if held >= PREFIX and held == self.wanted(PyByteArray_AS_STRING(self.held)):
                    self.deliver(PyByteArray_AS_STRING(self.held), held, out)
                    PyByteArray_Resize(self.held, 0)
            data += step
            length -= step
        return 0

    cdef Py_ssize_t unfinished(self) noexcept:
        return PyByteArray_GET_SIZE(self.held)

    cdef int finish(self, list out) except -1:
        if self.skip > 0 or PyByteArray_GET_SIZE(self.held) > 0:
            self.error_count += 1
        return 0

    cdef Py_ssize_t wanted(self, const char* prefix) except -1:
        """Return how many bytes of the frame are kept, its prefix included."""
        return PREFIX + min(message_length(prefix), self.budget)

    cdef int deliver(self, const char* frame, Py_ssize_t length, list out) except -1:
        """Deliver a message, of which `length` bytes, prefix included, are here; what it has beyond them will be skipped."""
        cdef bytes payload
        cdef Decoder decoder
        cdef bint truncated
        self.skip = PREFIX + message_length(frame) - length
        truncated = self.skip > 0
        payload = PyBytes_FromStringAndSize(frame + PREFIX, length - PREFIX)
        if frame[0] == 1:
            decoder = decoder_for(self.encoding, self.budget)
            if decoder is None:
                self.error_count += 1
                return 0
            payload = decoder.feed(payload)
            if decoder.error is None and not truncated:
                decoder.finish()
            if decoder.overflow:
                truncated = True
            elif decoder.error is not None:
                self.error_count += 1
                return 0
        out.append(new_chunk(payload, self.kind, truncated))
        return 0
