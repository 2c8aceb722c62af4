"""The outlet of a session that has a socket."""

cimport cython

from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http2.session cimport OUTLET_FULL, Outlet
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.transport.gathered_writes cimport gathered_writes

cdef enum:
    WRITTEN_AT_ONCE = 1048576      # octets for which a connection keeps one turn of the loop busy


@cython.final
cdef class EndpointOutlet(Outlet):
    """Writes to an endpoint."""

    cdef int send(self, const char* data, Py_ssize_t length) except -1:
        if self.endpoint.is_closing():
            return 0
        if self.is_to_client:
            self.counters.bytes_to_clients += length
        else:
            self.counters.bytes_to_upstreams += length
        self.endpoint.send_packed(data, length)
        if (self.endpoint.gathered >= OUTLET_FULL and not self.endpoint.has_unsent()
                and self.endpoint.flushed_early < WRITTEN_AT_ONCE):
            # what has no room is copied and waits, so there is room for as long as the system takes it
            self.endpoint.flush_records()
        return self.writes.add(self.endpoint)

    cdef Py_ssize_t unsent(self) noexcept:
        return self.endpoint.gathered + self.endpoint.unsent

    cdef int mark(self) except -1:
        self.marked_at = self.endpoint.write_buffer.size()
        self.marked_pass = self.endpoint.passes
        return 0

    cdef char* marked(self) noexcept:
        if self.endpoint.is_closing() or self.marked_pass != self.endpoint.passes:
            return NULL
        return <char*>self.endpoint.write_buffer.data() + self.marked_at


cdef EndpointOutlet new_outlet(Endpoint endpoint, Settings settings, bint is_to_client):
    cdef EndpointOutlet outlet = EndpointOutlet.__new__(EndpointOutlet)
    outlet.endpoint = endpoint
    outlet.writes = gathered_writes(endpoint.arena, settings.hooks.loop.call_soon)
    outlet.counters = settings.counters
    outlet.is_to_client = is_to_client
    outlet.marked_pass = -1
    return outlet
