# Frames of HTTP/2 (RFC 9113 sections 4.1 and 6): nine octets in and out, and the rules of each type
# that need no state.

from libc.stdint cimport uint8_t, uint32_t


cdef enum:
    FRAME_HEADER = 9
    FRAME_SIZE = 16384         # SETTINGS_MAX_FRAME_SIZE: what we take, and the most that we send
    MAX_FRAME_SIZE = 16777215
    MAX_WINDOW = 2147483647
    MAX_STREAM = 2147483647
    PREFACE_LENGTH = 24


cdef enum FrameType:
    FRAME_DATA = 0
    FRAME_HEADERS = 1
    FRAME_PRIORITY = 2
    FRAME_RST_STREAM = 3
    FRAME_SETTINGS = 4
    FRAME_PUSH_PROMISE = 5
    FRAME_PING = 6
    FRAME_GOAWAY = 7
    FRAME_WINDOW_UPDATE = 8
    FRAME_CONTINUATION = 9
    FRAME_PRIORITY_UPDATE = 16     # RFC 9218


cdef enum FrameFlag:
    FLAG_END_STREAM = 0x1
    FLAG_ACK = 0x1
    FLAG_END_HEADERS = 0x4
    FLAG_PADDED = 0x8
    FLAG_PRIORITY = 0x20


# Error codes (RFC 9113 section 7)
cdef enum ErrorCode:
    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


# What is wrong with a frame that stands alone. Each is an error of the connection.
cdef enum FrameFault:
    FRAME_OK = 0
    FRAME_TOO_LONG             # over FRAME_SIZE
    FRAME_LENGTH               # not a length of this type
    FRAME_CUT                  # too short for what its flags announce
    FRAME_PADDING              # more padding than there is room for
    FRAME_NO_STREAM            # stream 0 in a frame of a stream
    FRAME_STREAM               # a stream in a frame of the connection


cdef struct FrameHead:
    uint32_t length            # of the payload
    uint32_t stream
    uint8_t kind
    uint8_t flags


# "PRI * HTTP/2.0 ...", what a client's connection begins with (RFC 9113 section 3.4)
cdef const char* PREFACE


cdef inline uint32_t read_16(const char* p) noexcept nogil:
    cdef const uint8_t* q = <const uint8_t*>p
    return <uint32_t>q[0] << 8 | q[1]


cdef inline uint32_t read_32(const char* p) noexcept nogil:
    return read_16(p) << 16 | read_16(p + 2)


cdef inline void write_16(char* p, uint32_t value) noexcept nogil:
    p[0] = <char>(value >> 8)
    p[1] = <char>value


cdef inline void write_32(char* p, uint32_t value) noexcept nogil:
    write_16(p, value >> 16)
    write_16(p + 2, value)


# The nine octets at p, which are there. The reserved bit before the stream is ignored.
cdef inline FrameHead read_frame_head(const char* p) noexcept nogil:
    cdef FrameHead head
    head.length = <uint32_t>(<const uint8_t*>p)[0] << 16 | read_16(p + 1)
    head.kind = (<const uint8_t*>p)[3]
    head.flags = (<const uint8_t*>p)[4]
    head.stream = read_32(p + 5) & MAX_STREAM
    return head


cdef inline void write_frame_head(char* p, uint32_t length, int kind, int flags, uint32_t stream) noexcept nogil:
    p[0] = <char>(length >> 16)
    write_16(p + 1, length)
    p[3] = <char>kind
    p[4] = <char>flags
    write_32(p + 5, stream)


# What the head alone says is wrong, a FrameFault. A type that is not known is only ever too long.
cdef int frame_head_fault(const FrameHead* head) noexcept nogil
# How many octets of the payload stand before its content, and must have come before frame_content()
# is asked: the padding's length, priority, promised stream. FRAME_OK, or FRAME_CUT.
cdef int frame_prefix(const FrameHead* head, uint32_t* length) noexcept nogil
# Where the content of a DATA, HEADERS or PUSH_PROMISE frame lies in its payload, whose prefix is there.
# FRAME_OK, FRAME_CUT or FRAME_PADDING.
cdef int frame_content(const FrameHead* head, const char* payload, uint32_t* offset, uint32_t* length) noexcept nogil
# The ErrorCode of a FrameFault
cdef int frame_fault_code(int fault) noexcept nogil
# One line for people
cdef str frame_fault_text(int fault, const FrameHead* head)
# "PROTOCOL_ERROR", or "0x1f" for a code without a name
cdef str error_code_name(uint32_t code)
