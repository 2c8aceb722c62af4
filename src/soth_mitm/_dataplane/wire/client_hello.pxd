# The ClientHello: where its parts lie in the message, and the object that keeps the message.

from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef enum:
    # Bytes of all records of a hello, headers included, however many they are: no more than a read buffer takes before it has to be emptied
    MAX_HELLO = 65536


# Why a hello is refused; `detail` of HelloParts is the number in the text
cdef enum HelloError:
    HELLO_GOOD = 0
    HELLO_RECORD_TYPE
    HELLO_RECORD_VERSION
    HELLO_RECORD_LONG
    HELLO_RECORD_EMPTY
    HELLO_SPREAD
    HELLO_MESSAGE_TYPE
    HELLO_LONG
    HELLO_PAST_END
    HELLO_VECTOR_SHORT
    HELLO_ODD_LIST
    HELLO_TRAILING
    HELLO_TRAILING_EXTENSION
    HELLO_TRAILING_NAME
    HELLO_TRAILING_ALPN
    HELLO_SESSION_ID
    HELLO_EXTENSION_TWICE
    HELLO_NAMES
    HELLO_NAME


# A part of the message; `len` 0 when it is absent
cdef struct Part:
    uint32_t at
    uint32_t len


cdef struct HelloParts:
    uint16_t legacy_version
    uint8_t session_id_length
    bint has_ech
    Part ciphers               # lists of code points without their lengths
    Part extensions            # the whole block of extensions
    Part versions
    Part groups
    Part point_formats
    Part signature_algorithms
    Part server_name           # the host name
    Part alpn                  # names, each behind a byte with its length
    int error                  # HelloError
    uint32_t detail


cdef class ClientHello:
    cdef bytes message         # the handshake message without its header
    cdef HelloParts parts
    cdef readonly Py_ssize_t raw_length

    cdef const uint8_t* at(self, Part part) noexcept


# RFC 8701: 0x0a0a, 0x1a1a, … 0xfafa
cdef inline bint grease(uint16_t value) noexcept nogil:
    return (value & 0x0F0F) == 0x0A0A and (value >> 8) == (value & 0xFF)


cdef inline uint16_t number_at(const uint8_t* data) noexcept nogil:
    return <uint16_t>((data[0] << 8) | data[1])
