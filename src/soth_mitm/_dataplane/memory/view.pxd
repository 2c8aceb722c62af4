# Borrowed bytes. A View never outlives the buffer that lent it; whoever stores one says in its .pxd which buffer that is.

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
    return view.len == len(data) and (view.len == 0 or memcmp(PyBytes_AS_STRING(data), view.ptr, view.len) == 0)
