"""Which socket is one end of a TCP connection: Linux's sock_diag asked, without a search and
without a Python call in between.
"""

import os

cimport cython

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from libc.errno cimport EBADF
from libc.string cimport memcpy, memset


@cython.final
cdef class SockDiag:
    """A socket to the kernel, opened by the first question. May be used by threads: the
    interpreter's lock is held while it is asked.
    """

    def __cinit__(self):
        self.file = -1

    def ask(self, bytes source not None, int source_port, bytes destination not None,
            int destination_port, uint32_t scope_id=0):
        """Return inode and user of the socket that is bound to `source` and connected to
        `destination`; None if there is none here.

        Addresses are packed, IPv4-mapped ones as IPv4: the kernel files such sockets there,
        whatever their family. Raises OSError when the kernel, or the sandbox around us, does not
        answer.
        """
        cdef SothSocket found
        cdef int answer = self.look_up(
            source, source_port, destination, destination_port, scope_id, &found)
        if answer < 0:
            raise OSError(-answer, f"sock_diag does not answer: {os.strerror(-answer)}")
        return None if answer == SOTH_DIAG_NONE else (found.inode, found.uid)

    def close(self):
        """Close the socket for good; a question that comes later, from a look-up that hung, is
        refused.
        """
        self.closed = True
        self.drop()

    cdef int look_up(self, bytes source, int source_port, bytes destination, int destination_port,
                     uint32_t scope_id, SothSocket* found) except? -1:
        cdef SothEnd end
        cdef int answer
        fill_end(&end, source, source_port, destination, destination_port, scope_id)
        if self.closed:
            return -EBADF
        if self.file < 0:
            self.file = soth_diag_open()
            if self.file < 0:
                return self.file
        self.sequence += 1
        answer = soth_diag_ask(self.file, &end, self.sequence, found)
        if answer < 0:
            # what it may answer yet is nothing that is asked from now on
            self.drop()
        return answer

    cdef void drop(self) noexcept:
        if self.file >= 0:
            soth_diag_close(self.file)
            self.file = -1

    def __dealloc__(self):
        if self.file >= 0:
            soth_diag_close(self.file)


cdef int fill_end(SothEnd* end, bytes source, int source_port, bytes destination,
                  int destination_port, uint32_t scope_id) except -1:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(source)
    if size != PyBytes_GET_SIZE(destination) or size not in (4, 16):
        raise ValueError("a connection has two addresses of one family")
    memset(end, 0, sizeof(SothEnd))
    end.is_v6 = size == 16
    memcpy(end.source, PyBytes_AS_STRING(source), size)
    memcpy(end.destination, PyBytes_AS_STRING(destination), size)
    end.source_port = source_port
    end.destination_port = destination_port
    end.scope_id = scope_id
    return 0
