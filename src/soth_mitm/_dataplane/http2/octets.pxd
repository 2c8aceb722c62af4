# Bytes that are being put together: a block of field lines, a header block, the fragments of one. They
# belong to no peer's stream and to no budget: one such object serves message after message.


cdef class Octets:
    cdef char* data
    cdef Py_ssize_t size
    cdef Py_ssize_t capacity

    cdef void clear(self) noexcept                             # keeps the memory for the next use
    cdef int reserve(self, Py_ssize_t length) except -1        # so much room behind `size`
    cdef int append(self, const char* data, Py_ssize_t length) except -1
    cdef void drop(self) noexcept                              # gives the memory back
