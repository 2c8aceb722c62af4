# gRPC and gRPC-Web: the length-prefixed messages of one direction of a call.

from libc.stdint cimport int64_t, uint32_t

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


# What a part of a stream of messages is
cdef enum GrpcPart:
    PART_PREFIX = 0            # of a message that is not compressed
    PART_CONTENT               # of it
    PART_END                   # it ends here; no bytes
    PART_PACKED                # a compressed message, with its prefix


# A stream of messages in parts, for a search in them: only those that are compressed are had whole
cdef class GrpcParts:
    cdef bytes encoding        # grpc-encoding, or None
    cdef Py_ssize_t most       # bytes of a compressed message, and of what it has in it
    cdef bytes prefix          # what came of one
    cdef int64_t left          # bytes of the message that are still to come; -1: a prefix is
    cdef bytearray packed      # a compressed message as far as it has come; None: it is none
    cdef str error             # why a compressed message cannot be looked into, or None

    # Pairs of a GrpcPart and bytes; together they are what came. None: `error` says why it goes no further
    cdef list feed(self, bytes data)
    cdef Py_ssize_t held(self) noexcept
    # What a compressed message has in it; None: `error` says why that is not known
    cdef bytes unpacked(self, bytes message)


cdef GrpcParts new_grpc_parts(bytes encoding, Py_ssize_t most)
cdef bytes grpc_message(int flags, bytes payload)
