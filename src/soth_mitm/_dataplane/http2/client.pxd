# An upstream's connection that speaks HTTP/2: several requests at a time, for any client.

from libc.stdint cimport uint32_t

from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http2.stream cimport Http2Stream, SessionDriver
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.upstream.pool cimport PooledConnection
from soth_mitm._dataplane.wire.head cimport Head


cdef class Http2ClientConnection(PooledConnection):
    cdef Settings settings
    cdef ClientDriver driver
    cdef object on_ready               # start()'s; None: it was called
    cdef Py_ssize_t opened             # streams that are granted and not over
    cdef Py_ssize_t unsent             # of them, those whose request was not sent yet
    cdef bint has_worked               # a response came
    cdef bint is_looking               # the socket is being read between two turns of the loop
    cdef bint is_dead                  # it has ended, and the loop has not seen that yet
    cdef bint is_counted               # among the connections of the metrics
    cdef double heard_at               # when something came last
    cdef double looked_at              # when is_live() read the socket
    cdef double pinged_at
    cdef double kept_at                # when the time of http2.keepalive_ms began
    cdef Deadline ping_deadline        # of a PING of ours
    cdef Deadline keepalive_deadline   # None: there is no PING without a reason

    cdef int tell_ready(self, object error) except -1
    cdef int on_settings(self) except -1
    cdef int look_for_room(self) except -1             # what came may have changed how many streams it can carry
    cdef int offer_room(self) except -1                # what was sent may have made room
    cdef int probe(self) except -1                     # a PING goes with the stream, if nothing came for long
    cdef int await_ping(self) except -1
    cdef int check_ping(self) except -1
    cdef int keep_alive(self) except -1
    cdef int stop(self, object error) except -1        # its streams are over
    cdef int stream_left(self) except -1


cdef class ClientDriver(SessionDriver):
    pass


cdef class Http2ClientStream(Http2Stream):
    cdef Head upgrade                  # what the extended CONNECT was made of; None: it was another request
    cdef Http2ClientConnection owner   # None: it does not count any more
    cdef int method                    # MethodName of the request
    cdef int processed                 # Unprocessed

    cdef int on_response_head(self, Head head, bint is_end) except -1
