"""Upstream connections of one origin. Checking out an idle one is a list pop; dialling is the control plane's."""

import ssl
from collections import deque

cimport cython

from soth_mitm._dataplane.deadline cimport Deadline, DeadlineQueue
from soth_mitm._dataplane.endpoint cimport Endpoint
from soth_mitm._dataplane.party cimport Party
from soth_mitm._dataplane.plane cimport Counters

from soth_mitm.errors import WireError

SSL_ERROR = ssl.SSLError


# not final: proxy/ adds asyncio.BufferedProtocol
cdef class Upstream(Endpoint):
    """A connection to an origin, which serves one request after another, for any client."""

    def connection_lost(self, error):
        Endpoint.connection_lost(self, error)
        if self.pool is not None:
            self.pool.forget(self)


@cython.final
cdef class Parked(Party):
    """What an idle upstream connection answers to: it is closed when it ends, speaks unasked, or has been idle for too long."""

    def __cinit__(self, Upstream upstream not None):
        self.upstream = upstream
        self.deadline = Deadline(self)

    cdef int received(self, object endpoint) except -1:
        self.upstream.fail(None)
        return 0

    cdef int ended(self, object endpoint, bint clean) except -1:
        self.upstream.finish()
        return 0

    cdef int lost(self, object endpoint, object error) except -1:
        self.deadline.clear()
        if error is not None and self.upstream.pool is not None:
            self.upstream.pool.blame(self.upstream, error, True)
        return 0

    cdef int late(self, int stage) except -1:
        cdef Upstream upstream = self.upstream
        if upstream.pool is not None:
            upstream.pool.forget(upstream)
        upstream.finish()
        return 0


@cython.final
cdef class OriginPool:
    """Connections to one origin under one TLS identity.

    `dial(pool)` is called when a new connection is wanted and must end in exactly one call of `connected` or `failed`. `max_open` bounds
    what is dialled, in use and idle together; who finds it reached waits in order. Idle ones beyond
    `max_idle` are closed after the duration of `surplus_deadline`; a `max_idle` of 0 closes each as it comes back.
    """

    def __cinit__(self, origin, dial, Counters counters not None, DeadlineQueue idle_deadline not None,
                  DeadlineQueue surplus_deadline not None, *, Py_ssize_t max_open,
                  Py_ssize_t max_idle):
        self.origin = origin
        self.dial = dial
        self.counters = counters
        self.idle_deadline = idle_deadline
        self.surplus_deadline = surplus_deadline
        self.max_open = max_open
        self.max_idle = max_idle
        self.idle = []
        self.waiting = deque()

    cdef int claim(self, Party party) except -1:
        cdef Upstream upstream = self.take_idle()
        if upstream is not None:
            self.counters.pool_hits += 1
            return self.hand_over(upstream, party)
        return self.claim_new(party)

    cdef int claim_new(self, Party party) except -1:
        self.waiting.append(party)
        return self.dial_for_waiting()

    cdef int withdraw(self, Party party) except -1:
        if party in self.waiting:
            self.waiting.remove(party)
        return 0

    cdef int give_back(self, Upstream upstream) except -1:
        self.keep_session(upstream)
        if upstream.gone or upstream.closing or upstream.told_end or self.open > self.max_open:
            self.forget(upstream)
            upstream.finish()
            return 0
        # what was not read of the last response, because its client was slow, may be more than that response
        upstream.party = upstream.parked
        upstream.release()
        if upstream.gone or upstream.closing or upstream.told_end:
            return self.forget(upstream)
        if self.waiting:
            return self.hand_over(upstream, <Party>self.waiting.popleft())
        if self.max_idle == 0:
            self.forget(upstream)
            upstream.finish()
            return 0
        # requests come and go in waves: what is too much between two of them is closed when it stays too much
        upstream.parked.deadline.set(self.idle_deadline if len(self.idle) < self.max_idle else self.surplus_deadline, 0)
        self.idle.append(upstream)
        return 0

    cdef int forget(self, Upstream upstream) except -1:
        if upstream.pool is None:
            return 0
        self.keep_session(upstream)
        upstream.pool = None
        upstream.parked.deadline.clear()
        if upstream in self.idle:
            self.idle.remove(upstream)
        self.open -= 1
        return self.dial_for_waiting()

    cdef int keep_session(self, Upstream upstream) except -1:
        if not upstream.seen_back and upstream.bytes_in and self.on_first_return is not None:
            upstream.seen_back = True
            self.on_first_return(upstream)
        return 0

    cdef object blame(self, Upstream upstream, object error, bint idle):
        # With TLS 1.3 the handshake is over for us before the upstream has seen our certificate, or that we have none
        if self.on_refusal is None or upstream.bytes_in or not isinstance(error, SSL_ERROR):
            return None
        return self.on_refusal(error, idle)

    cdef Upstream take_idle(self):
        cdef Upstream upstream
        while self.idle:
            upstream = self.idle.pop()
            upstream.parked.deadline.clear()
            if not (upstream.gone or upstream.closing or upstream.told_end or upstream.inbox.size()):
                return upstream
            self.forget(upstream)
            upstream.finish()
        return None

    cdef int hand_over(self, Upstream upstream, Party party) except -1:
        upstream.served += 1
        upstream.party = party
        return party.granted(upstream)

    cdef int dial_for_waiting(self) except -1:
        while self.dialling < len(self.waiting) and self.open < self.max_open:
            self.open += 1
            self.dialling += 1
            self.counters.pool_misses += 1
            self.dial(self)
        if self.dialling < len(self.waiting):
            self.counters.pool_waits += 1
        return 0

    # --- the control plane's side

    def connected(self, Upstream upstream not None):
        """A dialled connection is ready for its first request."""
        upstream.arena.check_thread()
        cdef object refusal = None
        upstream.parked = Parked(upstream)
        upstream.party = upstream.parked
        # held since its handshake
        upstream.release()
        if upstream.gone or upstream.closing or upstream.told_end or upstream.inbox.size():
            # the next one would do the same
            refusal = self.blame(upstream, upstream.fault, False)
            upstream.abort()
            self.failed(refusal or WireError(f"{self.origin} closed the connection, or spoke, before it was asked", side="upstream",
                                             status=502))
            return
        self.dialling -= 1
        upstream.pool = self
        self.give_back(upstream)

    def failed(self, error):
        """A dial ended in `error`, which the first waiter is told."""
        self.dialling -= 1
        self.open -= 1
        if self.waiting:
            (<Party>self.waiting.popleft()).refused(error)
        self.dial_for_waiting()

    def close_idle(self):
        """Close what is idle. Connections in use are closed when they come back, because `max_idle` is 0 from now on."""
        cdef Upstream upstream
        self.max_idle = 0
        for upstream in list(self.idle):
            self.forget(upstream)
            upstream.finish()

    @property
    def idle_count(self):
        """How many connections wait for a request."""
        return len(self.idle)

    @property
    def waiting_count(self):
        """How many requests wait for a connection."""
        return len(self.waiting)

    def __repr__(self):
        return f"<OriginPool {self.origin}: {self.open} open, {len(self.idle)} idle, {len(self.waiting)} waiting>"
