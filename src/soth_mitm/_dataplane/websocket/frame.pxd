# Frames of WebSocket (RFC 6455 section 5): heads in and out, and the rules of a head. Payload is
# neither kept nor unmasked here; it is told as ranges of what was fed.

from libc.stdint cimport uint8_t, uint64_t


cdef enum:
    LONGEST_HEAD = 14
    LONGEST_CONTROL = 125
    # what a message of our own begins with
    BIT_FIN = 0x80
    BIT_COMPRESSED = 0x40      # RSV1 (RFC 7692 section 6)
    BITS_RESERVED = 0x30       # RSV2, RSV3
    BITS_OPCODE = 0x0f
    BIT_CONTROL = 0x08         # of an opcode


cdef enum Opcode:
    OPCODE_CONTINUATION = 0
    OPCODE_TEXT = 1
    OPCODE_BINARY = 2
    OPCODE_CLOSE = 8
    OPCODE_PING = 9
    OPCODE_PONG = 10


cdef struct FrameHead:
    uint64_t length            # of the payload; below 2 ** 63
    uint8_t bits               # FIN, RSV and opcode as they came
    bint is_masked
    char[4] key


# What may come next in one direction, changed by the heads that were read
cdef enum FramesState:
    FRAMES_OPEN = 0
    FRAMES_MESSAGE             # inside a fragmented message
    FRAMES_CLOSING             # the Close has come; nothing behind it counts
    FRAMES_STATES


cdef enum FramesInput:
    INPUT_WHOLE = 0            # a message in one frame
    INPUT_FIRST                # the first frame of more
    INPUT_MIDDLE               # a continuation that is not the last
    INPUT_LAST
    INPUT_CONTROL              # ping and pong
    INPUT_CLOSE
    FRAMES_INPUTS


cdef enum Step:
    STEP_MORE = 0              # nothing was taken: a head is not whole, or nothing came
    STEP_HEAD                  # a head was taken; it is in `head`, `left` octets of payload follow
    STEP_PAYLOAD               # payload was taken; it begins at `phase` of the key
    STEP_IGNORED               # octets behind a Close were taken
    STEP_VIOLATION             # nothing was taken, nor will be; `violation` says why


cdef class FrameReader:
    cdef readonly bint from_client     # its frames are masked, those of an upstream are not
    cdef readonly bint may_compress    # permessage-deflate was agreed
    cdef readonly bint is_foreign      # another extension was: RSV bits are not judged
    cdef readonly int state            # FramesState
    cdef readonly int violation        # Violation
    cdef FrameHead head                # the last that was read
    cdef uint64_t left                 # octets of its payload that have not come; 0: it is over
    cdef unsigned int phase

    # Take a head, or what is here of a payload, from the n octets at p; how many is in `used`. A
    # head that is not whole is not taken: its octets come again, with more behind them. It has
    # LONGEST_HEAD octets at most, and is refused as soon as an octet of it is wrong. Heads and
    # violations do not depend on how the octets are cut.
    cdef int next(self, const char* p, Py_ssize_t n, Py_ssize_t* used) noexcept nogil
    # The octets of the head at p, and the state behind it; 0: not whole, -1: a violation
    cdef int read_head(self, const char* p, Py_ssize_t n, int* following) noexcept nogil
    cdef int refuse(self, int violation) noexcept nogil
    # The n octets of payload at p, which were just taken, in the clear
    cdef bytes unmasked(self, const char* p, Py_ssize_t n)


# Write the head of a frame, LONGEST_HEAD octets at most, and return how many. `key`: NULL, or the
# four octets that mask the payload.
cdef int write_frame_head(char* out, int bits, uint64_t length, const char* key) noexcept nogil
# What is wrong with the n unmasked octets that are the payload of a Close
cdef int close_violation(const char* p, Py_ssize_t n) noexcept nogil
