# Compression of messages (RFC 7692 section 7.2): one direction's inflater, and our own compressor.

cdef enum:
    # A turn of the loop may inflate so much in one direction
    TURN_OCTETS = 1048576
    # what it counts to begin a stream of DEFLATE, which two octets can do
    STREAM_OCTETS = 1024
    # the most of a window that we compress with; 27 KiB of memory
    OWN_BITS = 12
    LEAST_OWN_BITS = 9         # zlib has no window of 8 bits


# Inflates one direction, message after message: `begin`, `feed` and `take` in turn, `end`, `take`.
cdef class Inflater:
    cdef bint takeover             # the window stays from message to message
    cdef object stream             # zlib's; None: the next octet begins one
    cdef bytes rest                # input that zlib has given back
    cdef bint is_pending           # take() has more to do
    cdef bint has_input            # an octet of this message came
    cdef bint is_ending

    cdef int begin(self) except -1
    # More of the message's payload. Not while take() has more to do.
    cdef int feed(self, bytes payload) except -1
    # The payload is complete.
    cdef int end(self) except -1
    # More of the message, b"" if there is none now; None: the payload is malformed. What it costs
    # is taken off `allowance`, in octets; while nothing is left of that, nothing is done.
    cdef bytes take(self, Py_ssize_t* allowance)


# Compresses whole messages of one direction.
cdef class Deflater:
    cdef int bits
    cdef bint takeover
    cdef object stream

    # The payload of a message with RSV1
    cdef bytes compress(self, bytes message)


# A compressor whose window the agreed one holds, or None if zlib has no window as small
cdef Deflater new_deflater(int agreed_bits, bint takeover)
