"""The texts that JA3 and JA4, the two customary fingerprints of TLS clients, are digests of. GREASE is left out of both.

JA3: https://github.com/salesforce/ja3; JA4: FoxIO's technical details of JA4, the TLS client part only.
"""

from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc, qsort

from soth_mitm._dataplane.wire.client_hello cimport ClientHello, grease, number_at

cdef enum:
    CHARACTERS = 6             # of a decimal number of 16 bits and its separator

cdef enum:
    EXT_SERVER_NAME = 0
    EXT_ALPN = 16

cdef const char* HEX = b"0123456789abcdef"


def ja3_text(ClientHello hello not None):
    """Return the JA3 string: version, suites, extensions, groups and point formats in decimal."""
    cdef Text text
    cdef const uint8_t* formats = hello.at(hello.parts.point_formats)
    cdef uint32_t i
    cdef uint32_t listed = hello.parts.ciphers.len + hello.parts.extensions.len + hello.parts.groups.len + hello.parts.point_formats.len
    text.start = text.end = <char*>malloc(CHARACTERS * <size_t>(listed + 2))
    if text.start == NULL:
        raise MemoryError()
    try:
        put_decimal(&text, hello.parts.legacy_version)
        put(&text, c",")
        put_decimals(&text, hello.at(hello.parts.ciphers), hello.parts.ciphers.len, False)
        put(&text, c",")
        put_decimals(&text, hello.at(hello.parts.extensions), hello.parts.extensions.len, True)
        put(&text, c",")
        put_decimals(&text, hello.at(hello.parts.groups), hello.parts.groups.len, False)
        put(&text, c",")
        for i in range(hello.parts.point_formats.len):
            if i:
                put(&text, c"-")
            put_decimal(&text, formats[i])
        return PyUnicode_DecodeASCII(text.start, text.end - text.start, NULL)
    finally:
        free(text.start)


def ja4_texts(ClientHello hello not None):
    """Return what JA4 is made of: counts of suites and of extensions, the offered version, whether there is a server_name, and two texts.

    The texts are the sorted suites, and the sorted extensions (server_name and ALPN left out) with the signature algorithms as sent.
    """
    cdef Text text
    cdef uint16_t* codes
    cdef uint32_t suites, extensions, hashed, offered = 0, i
    cdef bint named = False, lists_versions = False
    cdef size_t most = (hello.parts.ciphers.len + hello.parts.extensions.len) // 2 + 1
    cdef const uint8_t* data = hello.at(hello.parts.versions)
    cdef str sorted_suites, rest
    for i in range(0, hello.parts.versions.len, 2):
        if not grease(number_at(data + i)):
            lists_versions = True
            offered = max(offered, <uint32_t>number_at(data + i))
    if not lists_versions:
        offered = hello.parts.legacy_version
    codes = <uint16_t*>malloc(most * sizeof(uint16_t))
    text.start = <char*>malloc(CHARACTERS * (most + hello.parts.signature_algorithms.len // 2 + 1))
    if codes == NULL or text.start == NULL:
        free(codes)
        free(text.start)
        raise MemoryError()
    try:
        suites = collect(hello.at(hello.parts.ciphers), hello.parts.ciphers.len, False, codes)
        text.end = text.start
        put_sorted(&text, codes, suites)
        sorted_suites = PyUnicode_DecodeASCII(text.start, text.end - text.start, NULL)
        extensions = collect(hello.at(hello.parts.extensions), hello.parts.extensions.len, True, codes)
        hashed = 0
        for i in range(extensions):
            if codes[i] == EXT_SERVER_NAME:
                named = True
            elif codes[i] != EXT_ALPN:
                codes[hashed] = codes[i]
                hashed += 1
        text.end = text.start
        put_sorted(&text, codes, hashed)
        if hashed:
            put_signatures(&text, hello.at(hello.parts.signature_algorithms), hello.parts.signature_algorithms.len)
        rest = PyUnicode_DecodeASCII(text.start, text.end - text.start, NULL)
        return suites, extensions, offered, named, sorted_suites, rest
    finally:
        free(codes)
        free(text.start)


def is_grease(value):
    """Tell whether a 16-bit code point is one of the sixteen reserved by RFC 8701 (0x0a0a, 0x1a1a, … 0xfafa)."""
    return bool(grease(value))


cdef inline void put(Text* text, char character) noexcept nogil:
    text.end[0] = character
    text.end += 1


cdef void put_decimal(Text* text, uint16_t value) noexcept nogil:
    cdef uint16_t power = 1
    while value // power >= 10:
        power *= 10
    while power:
        put(text, c"0" + <char>(value // power % 10))
        power //= 10


cdef void put_hex(Text* text, uint16_t value) noexcept nogil:
    cdef int shift
    for shift in range(12, -4, -4):
        put(text, HEX[(value >> shift) & 15])


cdef inline uint32_t step(const uint8_t* code, bint has_body) noexcept nogil:
    """Return how far the next code is; behind an extension's there is a vector."""
    return 4 + number_at(code + 2) if has_body else 2


cdef void put_decimals(Text* text, const uint8_t* data, uint32_t length, bint has_body) noexcept nogil:
    cdef uint32_t at = 0
    cdef bint first = True
    while at < length:
        if not grease(number_at(data + at)):
            if not first:
                put(text, c"-")
            first = False
            put_decimal(text, number_at(data + at))
        at += step(data + at, has_body)


cdef uint32_t collect(const uint8_t* data, uint32_t length, bint has_body, uint16_t* codes) noexcept nogil:
    cdef uint32_t at = 0, count = 0
    while at < length:
        if not grease(number_at(data + at)):
            codes[count] = number_at(data + at)
            count += 1
        at += step(data + at, has_body)
    return count


cdef void put_sorted(Text* text, uint16_t* codes, uint32_t count) noexcept nogil:
    cdef uint32_t i
    qsort(codes, count, sizeof(uint16_t), compare)
    for i in range(count):
        if i:
            put(text, c",")
        put_hex(text, codes[i])


cdef void put_signatures(Text* text, const uint8_t* data, uint32_t length) noexcept nogil:
    cdef uint32_t at
    cdef char separator = c"_"
    for at in range(0, length, 2):
        if not grease(number_at(data + at)):
            put(text, separator)
            separator = c","
            put_hex(text, number_at(data + at))


cdef int compare(const void* one, const void* other) noexcept nogil:
    return <int>(<const uint16_t*>one)[0] - <int>(<const uint16_t*>other)[0]
