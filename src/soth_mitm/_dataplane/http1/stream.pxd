# One exchange's end on an HTTP/1 connection: the framing of what comes in and of what goes out. The
# two sides derive from it: http1/server and http1/client.

from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport Stream
from soth_mitm._dataplane.http1.framing cimport Body
from soth_mitm._dataplane.transport.endpoint cimport Endpoint


cdef enum OutFraming:
    OUT_PLAIN = 0              # a length, no content, or the bytes of the wire
    OUT_CHUNKED
    OUT_UNTIL_CLOSE


cdef class Http1Stream(Stream):
    cdef Endpoint endpoint
    cdef Settings settings         # of the exchange
    cdef Body body                 # of the message that comes in
    cdef Py_ssize_t offset         # bytes of the read buffer that pieces have covered
    cdef Py_ssize_t forwarded      # of them, those that were forwarded or are not to be
    cdef Http1Stream sink          # what take_content() forwards to; None: nothing
    cdef OutFraming out_framing
    # Of trailers in the read buffer that do not all pass: those that do, and where all of them lie;
    # None: there are none such
    cdef bytes lines
    cdef Py_ssize_t lines_at
    cdef Py_ssize_t lines_end

    cdef int count_in(self, Py_ssize_t count) except -1
    cdef int count_out(self, Py_ssize_t count) except -1
    # of the read buffer; reading goes on where only a full buffer had paused it
    cdef int consume(self, Py_ssize_t count) except -1
    cdef int send_head_bytes(self, bytes head) except -1
