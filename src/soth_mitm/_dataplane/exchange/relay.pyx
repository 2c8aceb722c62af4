"""Tunnels: the blind relay between two connections (RFC 9110 section 9.3.6)."""

cimport cython

from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.transport.lingering_close cimport close_in_order
from soth_mitm._dataplane.memory.party cimport Party
from soth_mitm._dataplane.http.settings cimport Plane


@cython.final
cdef class Tunnel(Party):
    """Relays between `client` and `upstream` from now on, beginning with what lies in their inboxes.

    `on_end()` is called once. The tunnel ends when both sides have ended, when one is lost, or when nothing has moved for the plane's
    `tunnel_idle`; in a drain, for the much shorter `tunnel_quiet`. `listen` comes before `start` where the client's first bytes are to be
    examined.
    """

    def __cinit__(self, Plane plane not None, Endpoint client not None, Endpoint upstream not None, on_end):
        self.plane = plane
        self.client = client
        self.upstream = upstream
        self.on_end = on_end
        self.deadline = Deadline(self)

    def listen(self):
        """Relay what the upstream says. What the client says stays in its inbox, and its party is told of it, until `start`."""
        self.plane.arena.check_thread()
        self.examiner = self.client.party
        self.client.party = self
        self.upstream.party = self
        self.wait()
        if self.client.gone or self.upstream.gone:
            self.stop(None)
            return
        self.forward(self.upstream)
        if self.upstream.told_end:
            self.ended(self.upstream, True)
        if not self.client.blocked:
            self.upstream.release()

    @property
    def upstream_spoke(self):
        """Whether the upstream has said anything."""
        return self.upstream.bytes_in > 0

    def dismiss(self):
        """Give the client back to the party that examined it, with all that it said, and close the upstream, which got nothing of it."""
        self.plane.arena.check_thread()
        if self.over:
            return
        self.over = True
        self.deadline.clear()
        self.client.party, self.examiner = self.examiner, None
        self.upstream.finish()

    def start(self):
        """Take over both endpoints."""
        self.plane.arena.check_thread()
        cdef Endpoint endpoint
        cdef tuple unheard = (self.client, self.upstream)
        if self.over:
            return
        self.plane.counters.tunnels += 1
        if self.examiner is not None:
            self.examiner = None
            unheard = (self.client,)
        self.client.party = self
        self.upstream.party = self
        self.wait()
        for endpoint in unheard:
            if endpoint.gone:
                self.stop(None)
                return
            self.forward(endpoint)
            if endpoint.told_end:
                self.ended(endpoint, True)
        for endpoint in (self.client, self.upstream):
            if not self.across(endpoint).blocked:
                endpoint.release()

    def drain(self):
        """End as soon as nothing moves."""
        self.plane.arena.check_thread()
        if not self.over:
            self.wait()

    cdef int wait(self) except -1:
        return self.deadline.set(self.plane.tunnel_quiet if self.plane.draining else self.plane.tunnel_idle, 0)

    cdef Endpoint across(self, object endpoint):
        return self.upstream if endpoint is self.client else self.client

    cdef int forward(self, Endpoint source) except -1:
        cdef Endpoint target = self.across(source)
        cdef Py_ssize_t size = source.inbox.size()
        if size == 0 or self.over:
            return 0
        if source is self.client:
            self.plane.counters.bytes_from_clients += size
            self.plane.counters.bytes_to_upstreams += size
        else:
            self.plane.counters.bytes_from_upstreams += size
            self.plane.counters.bytes_to_clients += size
        target.send(source.inbox.data(), size)
        source.inbox.consume(size)
        target.flush()
        if target.blocked:
            source.hold()
        return 0

    cdef int received(self, object endpoint) except -1:
        if self.examiner is not None and endpoint is self.client:
            return self.examiner.received(endpoint)
        self.wait()
        return self.forward(<Endpoint>endpoint)

    cdef int writable(self, object endpoint, bint now) except -1:
        if now:
            self.wait()
            self.across(endpoint).release()
        else:
            self.across(endpoint).hold()
        return 0

    cdef int ended(self, object endpoint, bint clean) except -1:
        cdef Endpoint other = self.across(endpoint)
        if self.examiner is not None and endpoint is self.client:
            return self.examiner.ended(endpoint, clean)
        self.ends += 1
        # protocols that are switched to say themselves when they end, and what came before a cut is theirs all the same
        if self.ends == 2 or not clean:
            return self.stop(None)
        if not other.gone:
            other.end_writing()
        return 0

    cdef int lost(self, object endpoint, object error) except -1:
        return self.stop(error)

    cdef int late(self, int stage) except -1:
        if self.plane.draining and (self.client.blocked or self.upstream.blocked):
            # it is not quiet: a slow reader has yet to take what came, and the drain has a deadline of its own
            return self.wait()
        return self.stop(None)

    def abort(self):
        """Cut both connections now."""
        self.plane.arena.check_thread()
        self.stop(ConnectionAbortedError("aborted"))

    cdef int stop(self, object error) except -1:
        cdef Endpoint endpoint
        if self.over:
            return 0
        self.over = True
        self.examiner = None
        self.deadline.clear()
        # first, because it may put somebody else in our place, who is then told when the connection is gone
        self.on_end()
        for endpoint in (self.client, self.upstream):
            if error is None:
                close_in_order(endpoint, self.plane)
            else:
                endpoint.fail(error)
        return 0
