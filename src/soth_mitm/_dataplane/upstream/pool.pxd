# Upstream connections of one origin and one TLS identity: idle ones, open ones, and who waits for one.

from libc.stdint cimport int64_t, intptr_t

from soth_mitm._dataplane.memory.deadline cimport Deadline, DeadlineQueue
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.transport.callbacks cimport EndpointCallbacks
from soth_mitm._dataplane.http.counters cimport Counters


cdef class Upstream(Endpoint):
    cdef OriginPool pool               # None: not counted by a pool (yet, or any more)
    cdef Parked parked
    cdef readonly int64_t served       # requests it was checked out for
    cdef bint seen_back                # it came back from a request once
    cdef double idle_since             # when it was last put among the idle ones
    cdef double usable_for             # how long it may be used from then on, by what its upstream said; < 0: it said nothing
    cdef intptr_t socket               # the system's handle, valid until `closing`
    cdef public object facts           # what the control plane knows of it: TLS version, certificate digest, ...

    # Give the waiter what lies unread in the socket of a connection that is broken, as far as it takes it
    cdef int hear_last_words(self) except -1
    # Its upstream said `response`, and may have said in it how long it keeps the connection
    cdef int obey(self, Head response) except -1
    # May it carry another request? To be asked while nobody uses it, right before one is sent
    cdef int is_live(self) except -1


# The callbacks of a connection that is idle: anything that happens to it ends it
cdef class Parked(EndpointCallbacks):
    cdef Upstream upstream
    cdef Deadline deadline


cdef class OriginPool:
    cdef object __weakref__
    cdef readonly object origin        # the pool's key, for the dialler and for people
    cdef readonly object dial          # dial(pool): begins a connection; ends in pool.connected() or pool.failed()
    cdef readonly Py_ssize_t max_open
    cdef readonly Py_ssize_t max_idle
    cdef readonly DeadlineQueue idle_deadline
    cdef readonly DeadlineQueue surplus_deadline
    cdef public object on_first_return  # called with a connection that comes back from its first request, or None
    cdef public object on_refusal      # on_refusal(error, idle) -> WireError: TLS failed after the handshake, before the first byte
    cdef Counters counters
    cdef list idle                     # Upstream, the most recently used last
    cdef object waiting                # deque of EndpointCallbacks
    cdef readonly Py_ssize_t open      # being dialled, in use, or idle
    cdef readonly Py_ssize_t dialling

    # A connection for `waiter`: on_pool_ready() comes at once from the idle ones, or later in its turn, or on_pool_failure() does
    cdef int claim(self, EndpointCallbacks waiter) except -1
    # The same, but rather a new one than an idle one: for a retry, after an idle one turned out to be dead
    cdef int claim_new(self, EndpointCallbacks waiter) except -1
    # The same, but an idle one only if it was idle for no more than that many seconds, and rather a new one otherwise
    cdef int claim_fresh(self, EndpointCallbacks waiter, double idle_seconds) except -1
    # It waits no more
    cdef int withdraw(self, EndpointCallbacks waiter) except -1
    # The exchange on it ended with both sides in order
    cdef int give_back(self, Upstream upstream) except -1
    # It is gone or of no more use
    cdef int forget(self, Upstream upstream) except -1
    # What to tell of a connection that `error` ended: a WireError if the upstream refused it in TLS, else None
    cdef object blame(self, Upstream upstream, object error, bint idle)
    # Its TLS session is good for the next one
    cdef int keep_session(self, Upstream upstream) except -1
    cdef int retire(self, Upstream upstream) except -1     # the same, and close it in order
    cdef Upstream take_idle(self, double idle_seconds)     # the one used last that is good; none that was idle for longer
    cdef int wait(self, EndpointCallbacks waiter) except -1
    cdef int dial_for_waiting(self) except -1
    cdef int hand_over(self, Upstream upstream, EndpointCallbacks waiter) except -1
