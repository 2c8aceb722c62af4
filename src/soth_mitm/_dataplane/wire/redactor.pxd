# Many exact strings in a stream of bytes, each replaced by one text.

from libc.stdint cimport int16_t, uint64_t


cdef extern from "many_strings.h" nogil:
    enum:
        SOTH_STRINGS_SHORTEST
        SOTH_STRINGS_MOST
        SOTH_STRINGS_NONE
        SOTH_STRINGS_FOUND
        SOTH_STRINGS_HELD

    ctypedef struct soth_string:
        const char* text
        size_t length
        int16_t next

    ctypedef struct soth_strings:
        size_t shortest
        size_t longest

    void soth_strings_prepare(soth_strings* all, soth_string* strings, size_t count) noexcept
    int soth_strings_find(
        const soth_strings* all, const char* data, size_t n, bint is_end, size_t* at, size_t* which) noexcept


cdef class SearchedStrings:
    """What is searched for. Shared by all streams; never changed."""

    cdef soth_strings tables
    cdef soth_string* strings
    cdef tuple texts                # of `strings`, which point into them
    cdef tuple replacements         # of each of them; None: they have none of their own

    cpdef bint is_in(self, bytes data) noexcept


cdef class Redactor:
    """One stream, from which the strings are taken."""

    cdef SearchedStrings searched
    cdef bytes replacement          # None: each string has its own
    cdef bytes held                 # the end of what came, which may begin a string; < longest
    cdef readonly uint64_t replaced

    cdef bytes pass_on(self, bytes data, bint is_end)
    cpdef bytes feed(self, bytes data)
    cpdef bytes finish(self)


cdef class Lookout:
    """One stream, in which none of the strings may pass."""

    cdef SearchedStrings searched
    cdef bytes context              # the end of what came, which may begin a string; < longest
    cdef Py_ssize_t passed          # of it, what was let go
    cdef readonly bint has_found    # one is there: nothing more leaves

    cdef bytes pass_on(self, bytes data, bint is_end)
    cpdef bytes feed(self, bytes data)
    cpdef bytes finish(self)
    cpdef bytes let_go(self)
