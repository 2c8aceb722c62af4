# gRPC and gRPC-Web: the length-prefixed messages of one direction of a call.

from libc.stdint cimport uint32_t

from soth_mitm._dataplane.wire.framer cimport Framer


cdef enum:
    PREFIX = 5                 # flags, then the length as four bytes, most significant first
    COMPRESSED = 1
    TRAILERS = 0x80            # gRPC-Web: the frame is no message but the trailers of the call


# What a response of ours is to a client of gRPC: the fields of one without content
cdef list grpc_failure(int status, bytes text, list fields)
# What ends a call whose response has begun; and the same as gRPC-Web has it
cdef bytes grpc_trailers(int status, bytes text)
cdef bytes grpc_trailers_frame(bytes lines)


cdef class GrpcFramer(Framer):
    cdef object kind           # FrameKind.GRPC_MESSAGE
    cdef bytes encoding        # grpc-encoding, None when the call names none
    cdef bint web              # gRPC-Web
    cdef bint text             # gRPC-Web in base64, each piece of which may be padded
    cdef readonly bytes trailers   # field lines of the trailers frame, each with its CRLF, or None

    # base64
    cdef uint32_t bits         # of the group of four that is being received
    cdef int digits            # of it that have come, padding included
    cdef int padding
    cdef bint is_wrong         # what came is no base64

    cdef bytearray held        # prefix and message as far as they have come, when they did not come in one feed
    cdef Py_ssize_t skip       # bytes of an over-long message that are still to be thrown away

    cdef Py_ssize_t feed_frames(self, const char* data, Py_ssize_t length, list out) except -1
    # Of base64: what it stands for, as far as it is complete and right. A filter calls it, and its framer is not `text` then
    cdef bytes text_decoded(self, const char* data, Py_ssize_t length)
    cdef bint is_known(self, int flags) noexcept
    cdef int keep_trailers(self, bytes block, bint truncated) except -1
    cdef Py_ssize_t wanted(self, const char* prefix) except -1
    cdef int deliver(self, const char* frame, Py_ssize_t length, list out) except -1
