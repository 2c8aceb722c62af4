# Frames of our own: a message in one frame, a fragment, or a Close.


cdef class MessageWriter:
    cdef bint masks            # to an upstream (RFC 6455 section 5.1)
    cdef bytes keys            # of the system's generator; each is used once
    cdef Py_ssize_t next_key

    # One frame; `bits` are FIN, RSV and opcode
    cdef bytes frame(self, int bits, bytes payload)
    # A message in one frame. `is_compressed`: `payload` is what a Deflater or Windows has returned.
    cdef bytes message(self, int opcode, bytes payload, bint is_compressed)
    # ValueError: the code must not be sent, or the reason has over 123 octets or is no UTF-8
    cdef bytes close(self, int code, bytes reason)
