# Upstream connections of one origin and one TLS identity, and what waits for a stream on one of them.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.http.counters cimport Counters
from soth_mitm._dataplane.http.stream cimport HttpConnection, Stream, StreamCallbacks
from soth_mitm._dataplane.memory.deadline cimport Deadline, DeadlineQueue
from soth_mitm._dataplane.memory.waiter cimport Waiter


# An upstream connection of a pool. It carries one stream (HTTP/1) or several (HTTP/2).
cdef class PooledConnection(HttpConnection):
    cdef OriginPool pool               # None: not counted by a pool (yet, or any more)
    cdef readonly int64_t served       # streams that were opened on it
    cdef list place                    # its pool's `idle` or `shared`, where it stands there
    cdef bint seen_back                # a stream ended on it in order
    cdef double idle_since             # when it last became idle
    cdef double usable_for             # seconds from then on, by what its upstream said; < 0: it said nothing
    cdef Deadline deadline             # of an idle one
    cdef OriginPool reserved_pool      # it belongs to one client: the pool that still counts it; None: it is shared

    # Its handshake is over: from now on it is this pool's. False: it has ended, or spoke before it was asked
    cdef bint begin(self) except -1
    # How many more streams it can carry now
    cdef Py_ssize_t free_streams(self) noexcept
    cdef bint is_idle(self) noexcept   # no stream is open
    cdef Stream open_stream(self, StreamCallbacks exchange)
    # May it carry another stream? To be asked right before one is opened. Its socket may be looked at, and what came be read
    cdef bint is_live(self) except -1
    # It can carry no more streams, whatever is going on over it
    cdef bint is_ending(self) noexcept
    # A connection that only one client uses: the stream for its next request, or None: it has ended meanwhile
    cdef Stream open_reserved_stream(self, StreamCallbacks exchange)
    # Out of the pool, and close it gracefully
    cdef int retire(self) except -1


cdef class OriginPool(Waiter):
    cdef object __weakref__
    cdef readonly object origin        # the pool's key, for the dialler and for people
    # fallback() -> OriginPool of the same origin that speaks HTTP/1 only; None: this one may not speak anything else
    cdef public object fallback
    cdef double http1_until            # the upstream asked for HTTP/1.1: until then all requests go to the fallback
    cdef readonly object dial          # dial(pool): begins a connection; ends in pool.connected() or pool.failed()
    cdef readonly Py_ssize_t max_open
    cdef readonly Py_ssize_t max_idle
    cdef readonly DeadlineQueue idle_deadline
    cdef readonly DeadlineQueue surplus_deadline
    cdef public object on_first_return  # called with the endpoint of a connection on which a stream has ended first, or None
    cdef public object on_refusal      # on_refusal(error, idle) -> WireError: TLS failed after the handshake, before the first byte
    cdef Counters counters
    cdef list idle                     # PooledConnections without a stream, the most recently used last
    cdef list shared                   # that have streams and can carry more of them; some have no room now
    cdef object waiting                # deque of StreamCallbacks
    cdef readonly Py_ssize_t open      # connections that are being dialled, in use, or idle
    cdef readonly Py_ssize_t dialling
    # that a new connection will carry, by what the last one could. 0: its upstream allows none, for now
    cdef readonly Py_ssize_t streams_expected

    # How long requests wait for the first dials to say what the origin speaks; None: that is known, or makes no difference
    cdef public DeadlineQueue first_answer
    cdef Deadline answer_deadline
    cdef bint is_answer_late           # since then those who wait have connections dialled as if it were HTTP/1

    # A stream for `exchange`: on_pool_ready() at once from a ready connection, or later in its turn, or on_pool_failure()
    cdef int acquire(self, StreamCallbacks exchange) except -1
    # The same, but rather on a new connection: for a retry, after an idle one turned out to be dead
    cdef int acquire_new(self, StreamCallbacks exchange) except -1
    # The same, but on an idle one only if it was idle for no more than that many seconds
    cdef int acquire_fresh(self, StreamCallbacks exchange, double idle_seconds) except -1
    # It waits no more
    cdef int cancel(self, StreamCallbacks exchange) except -1
    # A stream has ended on it, in order if it carries one at a time
    cdef int release(self, PooledConnection connection) except -1
    # The pool that a request is to ask: this one, or the fallback for one that can only go over HTTP/1
    cdef OriginPool pool_for(self, bint needs_http1)
    # The upstream answered a request so: the next ones do not ask again for a while
    cdef int require_http1(self) except -1
    # It may have more room than before, or has begun to end
    cdef int offer(self, PooledConnection connection) except -1
    # It was idle for too long
    cdef int on_idle_too_long(self, PooledConnection connection) except -1
    # Its upstream's SETTINGS allow no stream: whoever waits, waits for them to change
    cdef bint allows_none(self) noexcept
    # It is gone or of no more use
    cdef int discard(self, PooledConnection connection) except -1
    # What to tell of a connection that `error` ended: a WireError if the upstream refused it in TLS, else None
    cdef object explain_failure(self, PooledConnection connection, object error, bint idle)
    # Its TLS session is good for the next one
    cdef int store_session(self, PooledConnection connection) except -1
    # One that can carry another stream: the fullest that is at work, else the idle one used last; none that was idle for longer
    cdef PooledConnection take_ready(self, double idle_seconds)
    cdef PooledConnection take_shared(self)
    cdef PooledConnection take_idle(self, double idle_seconds)
    cdef int put_shared(self, PooledConnection connection) except -1
    cdef int leave_place(self, PooledConnection connection) except -1
    cdef bint is_surplus(self, PooledConnection connection) except -1    # it was dialled, and others have room for what it was dialled for
    cdef int wait(self, StreamCallbacks exchange) except -1
    cdef int await_answer(self, StreamCallbacks exchange) except -1
    cdef bint wants_dial(self) noexcept        # those who wait need one more, if max_open allows it
    cdef int dial_for_waiting(self) except -1
    cdef int fail_waiting(self, Py_ssize_t most, object error) except -1   # the first ones
    cdef int grant(self, PooledConnection connection, StreamCallbacks exchange) except -1
