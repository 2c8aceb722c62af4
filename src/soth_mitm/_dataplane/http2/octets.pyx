"""Bytes that are being put together, in memory that grows and is used again."""

cimport cython
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

cdef enum:
    FIRST_ROOM = 1024


@cython.final
cdef class Octets:
    """One growing block of bytes."""

    def __dealloc__(self):
        free(self.data)

    cdef void clear(self) noexcept:
        self.size = 0

    cdef int reserve(self, Py_ssize_t length) except -1:
        cdef Py_ssize_t capacity = self.capacity if self.capacity else FIRST_ROOM
        cdef char* data
        if self.size + length <= self.capacity:
            return 0
        while capacity < self.size + length:
            capacity *= 2
        data = <char*>realloc(self.data, capacity)
        if data == NULL:
            raise MemoryError()
        self.data = data
        self.capacity = capacity
        return 0

    cdef int append(self, const char* data, Py_ssize_t length) except -1:
        # one more, so that `data` is there even behind an append of nothing
        self.reserve(length + 1)
        memcpy(self.data + self.size, data, length)
        self.size += length
        return 0

    cdef void drop(self) noexcept:
        free(self.data)
        self.data = NULL
        self.size = self.capacity = 0
