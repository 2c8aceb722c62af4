"""Frames of HTTP/2: what their head and flags must be, without regard to any state.

Every fault here is an error of the connection. RFC 9113 would allow a stream error for two of them, a
DATA frame that is too long and a PRIORITY frame of another length; no peer that works sends either.
"""

from libc.stdint cimport uint8_t, uint32_t

ERROR_CODE_NAMES = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)
FRAME_NAMES = {
    FRAME_DATA: "DATA",
    FRAME_HEADERS: "HEADERS",
    FRAME_PRIORITY: "PRIORITY",
    FRAME_RST_STREAM: "RST_STREAM",
    FRAME_SETTINGS: "SETTINGS",
    FRAME_PUSH_PROMISE: "PUSH_PROMISE",
    FRAME_PING: "PING",
    FRAME_GOAWAY: "GOAWAY",
    FRAME_WINDOW_UPDATE: "WINDOW_UPDATE",
    FRAME_CONTINUATION: "CONTINUATION",
    FRAME_PRIORITY_UPDATE: "PRIORITY_UPDATE",
}
FAULT_TEXTS = {
    FRAME_TOO_LONG: "is longer than 16384 octets",
    FRAME_LENGTH: "has a length that its type does not allow",
    FRAME_CUT: "is too short for what its flags announce",
    FRAME_PADDING: "has more padding than payload",
    FRAME_NO_STREAM: "names no stream",
    FRAME_STREAM: "names a stream",
}

cdef const char* PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


cdef int frame_head_fault(const FrameHead* head) noexcept nogil:
    cdef uint8_t kind = head.kind
    if head.length > FRAME_SIZE:
        return FRAME_TOO_LONG
    if kind == FRAME_SETTINGS or kind == FRAME_PING or kind == FRAME_GOAWAY or kind == FRAME_PRIORITY_UPDATE:
        if head.stream:
            return FRAME_STREAM
    elif kind <= FRAME_CONTINUATION and kind != FRAME_WINDOW_UPDATE and head.stream == 0:
        return FRAME_NO_STREAM
    if kind == FRAME_PRIORITY:
        return FRAME_OK if head.length == 5 else FRAME_LENGTH
    if kind == FRAME_RST_STREAM or kind == FRAME_WINDOW_UPDATE:
        return FRAME_OK if head.length == 4 else FRAME_LENGTH
    if kind == FRAME_SETTINGS:
        if head.flags & FLAG_ACK:
            return FRAME_LENGTH if head.length else FRAME_OK
        return FRAME_LENGTH if head.length % 6 else FRAME_OK
    if kind == FRAME_PING:
        return FRAME_OK if head.length == 8 else FRAME_LENGTH
    if kind == FRAME_GOAWAY:
        return FRAME_OK if head.length >= 8 else FRAME_LENGTH
    if kind == FRAME_PRIORITY_UPDATE:
        return FRAME_OK if head.length >= 4 else FRAME_LENGTH
    return FRAME_OK


cdef int frame_prefix(const FrameHead* head, uint32_t* length) noexcept nogil:
    cdef uint32_t prefix = 1 if head.flags & FLAG_PADDED else 0
    if head.kind == FRAME_HEADERS and head.flags & FLAG_PRIORITY:
        prefix += 5
    elif head.kind == FRAME_PUSH_PROMISE:
        prefix += 4
    length[0] = prefix
    return FRAME_OK if head.length >= prefix else FRAME_CUT


cdef int frame_content(const FrameHead* head, const char* payload, uint32_t* offset, uint32_t* length) noexcept nogil:
    cdef uint32_t padding = <uint8_t>payload[0] if head.flags & FLAG_PADDED else 0
    cdef int fault = frame_prefix(head, offset)
    if fault:
        return fault
    # 32 bits: 255 octets of padding and the one that says so are more than an octet can count
    if padding > head.length - offset[0]:
        return FRAME_PADDING
    length[0] = head.length - offset[0] - padding
    return FRAME_OK


cdef int frame_fault_code(int fault) noexcept nogil:
    if fault == FRAME_OK:
        return NO_ERROR
    if fault == FRAME_TOO_LONG or fault == FRAME_LENGTH or fault == FRAME_CUT:
        return FRAME_SIZE_ERROR
    return PROTOCOL_ERROR


cdef str frame_fault_text(int fault, const FrameHead* head):
    name = FRAME_NAMES.get(head.kind, f"type {head.kind:#x}")
    return f"a frame ({name}, {head.length} octets, stream {head.stream}) {FAULT_TEXTS[fault]}"


cdef str error_code_name(uint32_t code):
    return ERROR_CODE_NAMES[code] if code < <uint32_t>len(ERROR_CODE_NAMES) else f"{code:#x}"


def name_error_code(uint32_t code):
    """Return `"PROTOCOL_ERROR"`, or `"0x1f"` for a code without a name."""
    return error_code_name(code)


def inspect_frame(bytes data not None):
    """Read the frame at the start of `data`: (payload length, type, flags, stream, content).

    `content` is the payload without padding, priority and promised stream; None when the payload is
    not whole. Raises ValueError for a frame that is malformed whatever the connection's state, with
    the code's name and a text.
    """
    cdef FrameHead head
    cdef uint32_t offset = 0, length
    cdef int fault
    if len(data) < FRAME_HEADER:
        raise ValueError("a frame has nine octets at least")
    head = read_frame_head(data)
    fault = frame_head_fault(&head)
    length = head.length
    content = None
    if fault == FRAME_OK and len(data) - FRAME_HEADER >= head.length:
        if head.kind == FRAME_DATA or head.kind == FRAME_HEADERS or head.kind == FRAME_PUSH_PROMISE:
            fault = frame_content(&head, <const char*>data + FRAME_HEADER, &offset, &length)
        content = data[FRAME_HEADER + offset:FRAME_HEADER + offset + length]
    if fault:
        raise ValueError(error_code_name(frame_fault_code(fault)), frame_fault_text(fault, &head))
    return head.length, head.kind, head.flags, head.stream, content


def make_frame(int kind, int flags, uint32_t stream, bytes payload not None=b""):
    """Return one frame as it is on the wire."""
    cdef char head[FRAME_HEADER]
    write_frame_head(head, <uint32_t>len(payload), kind, flags, stream)
    return head[:FRAME_HEADER] + payload
