# The WebSockets of one proxy whose messages are read, for what is done to them from outside.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.stream_tunnel cimport StreamTunnel


cdef class OpenWebSockets:
    cdef dict tunnels                  # StreamTunnels by the numbers of their flows

    cdef int add(self, int64_t flow_id, StreamTunnel tunnel) except -1
    cdef int remove(self, int64_t flow_id) except -1
