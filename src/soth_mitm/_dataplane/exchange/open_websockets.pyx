"""The WebSockets of one proxy whose messages are read, by the numbers of their flows."""

cimport cython
from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.message_tap cimport Injection
from soth_mitm._dataplane.exchange.stream_tunnel cimport StreamTunnel
from soth_mitm._dataplane.websocket.message_writer cimport MessageWriter


@cython.final
cdef class OpenWebSockets:
    """WebSockets whose messages are read, while they are open. Belongs to the loop of its proxy."""

    def __cinit__(self):
        self.tunnels = {}

    cdef int add(self, int64_t flow_id, StreamTunnel tunnel) except -1:
        self.tunnels[flow_id] = tunnel
        return 0

    cdef int remove(self, int64_t flow_id) except -1:
        self.tunnels.pop(flow_id, None)
        return 0

    def __contains__(self, int64_t flow_id):
        return flow_id in self.tunnels

    def inject(self, int64_t flow_id, bytes payload not None, bint is_text, bint to_client, sent=None):
        """Have a message sent at the next border of its direction; `sent` is done then, or fails with LookupError.

        LookupError: no such WebSocket is open, or that direction was closed. Without `sent` nobody waits: BlockingIOError if the messages
        that wait leave no room.
        """
        cdef StreamTunnel tunnel = self.tunnels.get(flow_id)
        if tunnel is None:
            raise LookupError(f"flow {flow_id} is over, or is no WebSocket whose messages are read")
        if not tunnel.can_inject(to_client):
            raise LookupError(f"the WebSocket of flow {flow_id} is closing")
        if not tunnel.inject(Injection(payload, is_text, sent), to_client):
            raise BlockingIOError(f"too many messages wait to be sent on the WebSocket of flow {flow_id}")

    def close(self, int64_t flow_id, int code, bytes reason not None):
        """Send both sides a Close, and end the WebSocket; False: there is no such one. ValueError: that Close must not be sent."""
        cdef StreamTunnel tunnel = self.tunnels.get(flow_id)
        MessageWriter(False).close(code, reason)
        if tunnel is None:
            return False
        tunnel.close(code, reason)
        return True

    def end_all(self, int code, bytes reason not None):
        """Let what waits pass, send a Close to both sides of each, and end them."""
        for tunnel in list(self.tunnels.values()):
            (<StreamTunnel>tunnel).end_with(code, reason)
