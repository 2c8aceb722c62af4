"""The counters of one proxy that the data plane keeps."""

cimport cython

# In seconds: what a person or a program waits for, and what a filter takes
LONG_EDGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
FILTER_EDGES = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)


@cython.final
cdef class Histogram:
    """How many took at most how long."""

    def __cinit__(self, tuple edges not None):
        if len(edges) > MOST_EDGES or list(edges) != sorted(edges):
            raise ValueError(f"edges: at most {MOST_EDGES}, ascending")
        self.edges = edges
        self.length = len(edges)
        for index, edge in enumerate(edges):
            self.limits[index] = edge

    cdef int add(self, double seconds) noexcept:
        cdef int place = 0
        while place < self.length and seconds > self.limits[place]:
            place += 1
        self.found[place] += 1
        self.seconds += seconds
        return 0

    @property
    def counts(self):
        """By the first edge that is not passed; the last are those beyond."""
        return [self.found[place] for place in range(self.length + 1)]


@cython.final
cdef class FlowCounts:
    """The flows to one kind of destination that have ended, by protocol, end and class of status."""

    def __cinit__(self, str name not None=""):
        self.name = name

    cdef int count(self, int protocol, int end, int status) noexcept:
        cdef int place = 0 if status == 0 else status // 100 if status < 600 else STATUS_CLASSES - 1
        self.ended[protocol][end][place] += 1
        return 0

    @property
    def counts(self):
        """Those that are not zero: (protocol, end, class of status, count)."""
        cdef int protocol, end, status
        found = []
        for protocol in range(<int>FLOW_PROTOCOLS):
            for end in range(<int>FLOW_ENDS):
                for status in range(<int>STATUS_CLASSES):
                    if self.ended[protocol][end][status]:
                        found.append((protocol, end, status, self.ended[protocol][end][status]))
        return found


@cython.final
cdef class Counters:
    """What the data plane counts; all start at zero and belong to one loop. `soth_mitm.metrics` says what each means."""

    def __cinit__(self):
        self.request_times = Histogram(LONG_EDGES)
        self.first_byte_times = Histogram(LONG_EDGES)
        self.filter_times = Histogram(FILTER_EDGES)
        self.unlisted = FlowCounts()

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
