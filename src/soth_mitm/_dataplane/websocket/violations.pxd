# What a peer of a WebSocket can do wrong: rules of RFC 6455 and RFC 7692, and one limit of ours.


# Each is an error of the connection: it is closed on both sides, with the code of close_code_of.
cdef enum Violation:
    NO_VIOLATION = 0
    # of a frame's head (RFC 6455 section 5.2)
    RESERVED_BIT               # RSV2 or RSV3
    COMPRESSED_BIT             # RSV1 where nothing was agreed, or not on a first frame
    RESERVED_OPCODE
    CONTROL_FRAGMENT
    CONTROL_LENGTH             # over 125
    LENGTH_FORM                # not the shortest form
    LENGTH_RANGE               # the highest of 64 bits
    UNMASKED                   # from a client
    MASKED                     # from an upstream
    NO_START                   # a continuation of nothing
    UNFINISHED                 # another message inside a fragmented one
    # of the payload of a Close (section 5.5.1)
    CLOSE_LENGTH               # one octet
    CLOSE_CODE
    CLOSE_REASON               # no UTF-8
    # of a message
    TEXT_NOT_UTF8
    DEFLATE_DATA
    TOO_LONG                   # to be read
    BEHIND_CLOSE               # to be dropped (section 1.4); no Close is sent for it
    VIOLATIONS


# 1002, 1007 or 1009
cdef int close_code_of(int violation) noexcept nogil
# b"client: unmasked frame", 60 octets at most: the reason of the Close that goes to both sides
cdef bytes close_reason_of(int violation, bint from_client)
