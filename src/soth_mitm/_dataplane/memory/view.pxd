# Borrowed bytes. A View never outlives the buffer that lent it; a class that stores one names that
# buffer in its .pxd.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memcmp


cdef struct View:
    const char* ptr
    Py_ssize_t len


cdef inline View view_of(const char* ptr, Py_ssize_t length) noexcept nogil:
    cdef View view
    view.ptr = ptr
    view.len = length
    return view


cdef inline bytes view_bytes(View view):
    """Copy the borrowed bytes into an object of their own."""
    return PyBytes_FromStringAndSize(view.ptr, view.len)


cdef inline bint is_view_of(bytes data, View view) noexcept:
    """Tell whether the borrowed bytes are those of `data`."""
    if view.len != len(data):
        return False
    return view.len == 0 or memcmp(PyBytes_AS_STRING(data), view.ptr, view.len) == 0
