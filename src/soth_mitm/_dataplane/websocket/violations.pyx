"""What a peer of a WebSocket can do wrong, and the Close that both sides get for it."""

# the same order as the enum
VIOLATION_NAMES = (
    "none", "reserved_bit", "compressed_bit", "reserved_opcode", "control_fragment",
    "control_length", "length_form", "length_range", "unmasked", "masked", "no_start", "unfinished",
    "close_length", "close_code", "close_reason", "text_not_utf8", "deflate_data", "too_long",
    "behind_close",
)
# behind "client: " or "upstream: "
VIOLATION_TEXTS = (
    "", "reserved bit of no extension", "compressed bit not allowed here", "reserved opcode",
    "fragmented control frame", "control frame over 125 octets", "length not in its shortest form",
    "length over 63 bits", "unmasked frame", "masked frame", "continuation of no message",
    "message inside a fragmented message", "close payload of one octet",
    "close code that must not be sent", "close reason is not UTF-8", "text is not UTF-8",
    "compressed data malformed", "message too long to be read",
    "data behind a Close",
)


cdef int close_code_of(int violation) noexcept nogil:
    if violation == CLOSE_REASON or violation == TEXT_NOT_UTF8 or violation == DEFLATE_DATA:
        return 1007
    return 1009 if violation == TOO_LONG else 1002


cdef bytes close_reason_of(int violation, bint from_client):
    cdef str text = VIOLATION_TEXTS[violation]
    return ("client: " if from_client else "upstream: ").encode() + text.encode()


def describe_violation(int violation, bint from_client):
    """Return code and reason of the Close that goes to both sides.

    `violation` is an index of VIOLATION_NAMES; ValueError: it is none. The reason has 60 octets
    at most.
    """
    if not 0 < violation < <int>VIOLATIONS:
        raise ValueError("no such violation")
    return close_code_of(violation), close_reason_of(violation, from_client)
