# Byte scanning in C: ext/scan.h, ext/hex.h and ext/authority.h, where each function says what it answers.

from libc.stdint cimport int64_t


cdef extern from "scan.h" nogil:
    enum:
        SOTH_END_MORE
        SOTH_END_BARE_LF
        SOTH_END_BARE_CR
        SOTH_END_CONTROL

    bint soth_is_token_byte(char byte) noexcept
    size_t soth_find_control(const char* p, size_t n) noexcept
    size_t soth_find_not_visible(const char* p, size_t n) noexcept
    size_t soth_find_not_token(const char* p, size_t n) noexcept
    bint soth_equals_lower(const char* p, const char* lower, size_t n) noexcept
    bint soth_equals_fold(const char* p, const char* q, size_t n) noexcept
    Py_ssize_t soth_find_block_end(const char* p, size_t n, bint loose, size_t* scanned) noexcept


cdef extern from "hex.h" nogil:
    enum:
        SOTH_NUMBER_NONE
        SOTH_NUMBER_OVERFLOW

    int64_t soth_parse_hex(const char* p, size_t n, size_t max_digits, size_t* used) noexcept
    int64_t soth_parse_decimal(const char* p, size_t n) noexcept


cdef extern from "authority.h" nogil:
    size_t soth_parse_authority(const char* p, size_t n, unsigned int* port) noexcept
