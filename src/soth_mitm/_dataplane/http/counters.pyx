"""The counters of one proxy that the data plane keeps."""

cimport cython


@cython.final
cdef class Counters:
    """What the data plane counts; all start at zero and belong to one loop. `soth_mitm.metrics` says what each means."""

    @property
    def http2_resets_received(self):
        """By error code; the last are those without a name."""
        return [count for count in self.resets_received]

    @property
    def http2_resets_sent(self):
        """The same."""
        return [count for count in self.resets_sent]

    @property
    def http2_goaways_sent(self):
        """The same, of those that no limit caused."""
        return [count for count in self.goaways_sent]

    @property
    def http2_goaways_of_limits(self):
        """By limit of http2/limits."""
        return [count for count in self.goaways_of_limits]

    @property
    def websocket_messages_by_kind(self):
        """Text to upstreams, binary to upstreams, text to clients, binary to clients."""
        return [count for count in self.websocket_messages]

    @property
    def websocket_violations_by_rule(self):
        """In the order of `VIOLATION_NAMES`: those of clients, then those of upstreams."""
        return [count for count in self.websocket_violations_of]

    @property
    def websocket_closes_by_side(self):
        """By the client, the upstream, the proxy, nobody."""
        return [count for count in self.websocket_closes]

    @property
    def flows_by_pairing(self):
        """HTTP/1 with HTTP/1, HTTP/1 with HTTP/2, HTTP/2 with HTTP/1, HTTP/2 with HTTP/2: the client first."""
        return [count for count in self.pairings]

    @property
    def filter_times(self):
        """Chunks by how long their filter took: up to 0.1 ms, 1 ms, 10 ms, 0.1 s, 1 s, 10 s, and longer."""
        return [count for count in self.filter_buckets]
