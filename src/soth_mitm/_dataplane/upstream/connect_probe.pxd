# Makes sure that an upstream can be reached.

from soth_mitm._dataplane.http.stream cimport StreamCallbacks
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.upstream.pool cimport OriginPool


cdef class ConnectProbe(StreamCallbacks):
    cdef OriginPool pool
    cdef object future
    cdef Deadline deadline
