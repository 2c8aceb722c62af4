# gRPC over HTTP/2: the length-prefixed messages of one direction of a call.

from soth_mitm._dataplane.frames cimport Framer


cdef enum:
    PREFIX = 5                 # compression flag, then the length as four bytes, most significant first


cdef class GrpcFramer(Framer):
    cdef object kind           # FrameKind.GRPC_MESSAGE
    cdef bytes encoding        # grpc-encoding, None when the call names none

    cdef bytearray held        # prefix and message as far as they have come, when they did not come in one feed
    cdef Py_ssize_t skip       # bytes of an over-long message that are still to be thrown away

    cdef Py_ssize_t wanted(self, const char* prefix) except -1
    cdef int deliver(self, const char* frame, Py_ssize_t length, list out) except -1
