# Payload in C: ext/mask.h and ext/utf8.h, where each function says what it answers.

cdef extern from "mask.h" nogil:
    unsigned int soth_mask(char* out, const char* data, size_t n, const char* key,
                           unsigned int phase) noexcept


cdef extern from "utf8.h" nogil:
    enum:
        SOTH_UTF8_BORDER
        SOTH_UTF8_WRONG

    unsigned int soth_utf8(unsigned int state, const char* p, size_t n) noexcept
    size_t soth_utf8_whole(unsigned int state, const char* p, size_t n) noexcept
