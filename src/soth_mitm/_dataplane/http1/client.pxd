# An upstream's connection that speaks HTTP/1: one request at a time, for one client after another.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.http.stream cimport HttpConnection
from soth_mitm._dataplane.http1.connection_state cimport ClientInput, ClientState
from soth_mitm._dataplane.http1.stream cimport Http1Stream
from soth_mitm._dataplane.upstream.pool cimport OriginPool, PooledConnection
from soth_mitm._dataplane.wire.head cimport Head


cdef class Http1ClientConnection(PooledConnection):
    cdef Http1ClientStream stream
    cdef ClientState state
    # the client's connection that alone uses it; None: it is shared
    cdef HttpConnection reserved_for
    cdef Py_ssize_t scanned            # of the read buffer, for the response's head
    cdef int method                    # MethodName of the request
    cdef int64_t bytes_before          # what the upstream had sent before this request

    cdef int move(self, ClientInput event) except -1
    cdef int read_heads(self) except -1
    cdef int begin_content(self, Head head) except -1
    # The exchange is over, in order or not: what was paused for it reads again
    cdef int leave_exchange(self) except -1
    cdef int fail_exchange(self, bytes text) except -1
    # Its upstream said `response`, and may have said in it how long it keeps the connection
    cdef int obey(self, Head response) except -1
    cdef int release(self, Head request, Head response, HttpConnection client) except -1
    cdef int close_unusable(self) except -1


cdef class Http1ClientStream(Http1Stream):
    cdef Http1ClientConnection owner
