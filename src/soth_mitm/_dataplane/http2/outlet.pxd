# Where the octets of a session go: an endpoint, which is flushed once in each turn of the loop.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.http.counters cimport Counters
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http2.session cimport Outlet
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.transport.gathered_writes cimport GatheredWrites


cdef class EndpointOutlet(Outlet):
    cdef Endpoint endpoint
    cdef GatheredWrites writes
    cdef Counters counters
    cdef bint is_to_client
    # where the frame that was marked begins in the endpoint's write buffer, and which write buffer that was
    cdef Py_ssize_t marked_at
    cdef int64_t marked_pass


cdef EndpointOutlet new_outlet(Endpoint endpoint, Settings settings, bint is_to_client)
