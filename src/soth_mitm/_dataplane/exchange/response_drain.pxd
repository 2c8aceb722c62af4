# The rest of a response that is not wanted, read to its end so that the upstream's connection can be used again.

from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport Stream, StreamCallbacks
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.wire.head cimport Head


cdef class ResponseDrain(StreamCallbacks):
    cdef Stream upstream               # None: it is over
    cdef Head request
    cdef Head response
    cdef Py_ssize_t left               # bytes that may still come
    cdef Deadline deadline

    cdef int drop(self) except -1


# Take `upstream` over, whose request was sent. It is released at its response's end, and reset if that is far or late
cdef int drain_response(Settings settings, Stream upstream, Head request, Head response) except -1
