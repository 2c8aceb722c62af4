"""Upstream connections of one origin.

A stream on an idle connection costs a list pop and a look at its socket. Connections that carry several streams are filled one
after the other, so that those that are not needed become idle and end. Dialling is the control plane's.
"""

import ssl
from collections import deque

cimport cython
from cpython.time cimport monotonic
from libc.math cimport INFINITY

from soth_mitm._dataplane.http.counters cimport Counters
from soth_mitm._dataplane.http.stream cimport HttpConnection, Stream, StreamCallbacks
from soth_mitm._dataplane.memory.deadline cimport Deadline, DeadlineQueue
from soth_mitm._dataplane.memory.waiter cimport Waiter

from soth_mitm.errors import WireError

SSL_ERROR = ssl.SSLError

cdef enum:
    FIRST_DIALS = 2        # at once, while it is not known what an origin speaks: the second one in case that the first one hangs
    HTTP1_SECONDS = 300    # that an upstream's wish for HTTP/1.1 is remembered, as long as what TLS agreed on


# not final: each version of HTTP has its own
cdef class PooledConnection(HttpConnection):
    """An upstream connection that carries streams for any client."""

    cdef bint begin(self) except -1:
        return False

    cdef Py_ssize_t free_streams(self) noexcept:
        return 0

    cdef bint is_idle(self) noexcept:
        return False

    cdef Stream open_stream(self, StreamCallbacks exchange):
        raise NotImplementedError("a connection says how it opens a stream")

    cdef bint is_live(self) except -1:
        return False

    cdef bint is_ending(self) noexcept:
        return self.endpoint.is_closing() or self.endpoint.has_told_eof()

    cdef Stream open_reserved_stream(self, StreamCallbacks exchange):
        return None

    cdef int retire(self) except -1:
        if self.pool is not None:
            self.pool.discard(self)
        return self.endpoint.close()

    cdef int on_deadline(self, int stage) except -1:
        return 0 if self.pool is None else self.pool.on_idle_too_long(self)

    def abort(self):
        """Cut the connection now."""
        self.endpoint.arena.check_thread()
        self.endpoint.abort(None)


@cython.final
cdef class OriginPool(Waiter):
    """Connections to one origin under one TLS identity.

    `dial(pool)` is called when a new connection is wanted and must end in exactly one call of `connected` or `failed`. `max_open` bounds
    what is dialled, in use and idle together; requests beyond it wait in order. Idle ones beyond `max_idle` are closed after the duration
    of `surplus_deadline`; a `max_idle` of 0 closes each when its last stream ends.

    `first_answer` is for an origin that may speak HTTP/2: while that is not known, two connections are dialled at once, and other requests
    wait for the first of them that is connected, for no longer than that.
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
        self.shared = []
        self.waiting = deque()
        self.streams_expected = 1
        self.answer_deadline = Deadline(self)

    cdef OriginPool pool_for(self, bint needs_http1):
        if self.fallback is None:
            return self
        if not needs_http1 and (self.http1_until == 0 or monotonic() >= self.http1_until):
            return self
        return self.fallback()

    cdef int require_http1(self) except -1:
        self.http1_until = monotonic() + HTTP1_SECONDS
        return 0

    cdef int acquire(self, StreamCallbacks exchange) except -1:
        return self.acquire_fresh(exchange, INFINITY)

    cdef int acquire_fresh(self, StreamCallbacks exchange, double idle_seconds) except -1:
        cdef PooledConnection connection = self.take_ready(idle_seconds)
        if connection is not None:
            self.counters.pool_hits += 1
            return self.grant(connection, exchange)
        if self.idle and self.open >= self.max_open and (<PooledConnection>self.idle[0]).free_streams():
            # the one that was unused for longest makes room. One whose upstream allows nothing now is waited for
            (<PooledConnection>self.idle[0]).retire()
        return self.wait(exchange)

    cdef int wait(self, StreamCallbacks exchange) except -1:
        self.await_answer(exchange)
        if self.open >= self.max_open and self.dialling * self.streams_expected < len(self.waiting):
            self.counters.pool_waits += 1
        return 0

    cdef int acquire_new(self, StreamCallbacks exchange) except -1:
        if self.open >= self.max_open:
            return self.acquire(exchange)
        return self.await_answer(exchange)

    cdef int await_answer(self, StreamCallbacks exchange) except -1:
        self.waiting.append(exchange)
        if self.first_answer is not None and len(self.waiting) == 1 and self.dialling == 0:
            self.is_answer_late = False
            self.answer_deadline.set(self.first_answer, 0)
        return self.dial_for_waiting()

    cdef int on_deadline(self, int stage) except -1:
        # what hangs is not to hold the others
        self.is_answer_late = True
        return self.dial_for_waiting()

    cdef int cancel(self, StreamCallbacks exchange) except -1:
        if exchange in self.waiting:
            self.waiting.remove(exchange)
        return 0

    cdef int release(self, PooledConnection connection) except -1:
        self.store_session(connection)
        if connection.is_ending() or self.open > self.max_open:
            return connection.retire() if connection.is_idle() else 0
        return self.offer(connection)

    cdef bint allows_none(self) noexcept:
        return self.streams_expected == 0

    cdef int offer(self, PooledConnection connection) except -1:
        cdef bint allowed_none = self.allows_none()
        if connection.is_ending():
            return connection.retire() if connection.is_idle() else 0
        while self.waiting and connection.free_streams():
            if connection.served and connection.is_idle() and not connection.is_live():
                self.counters.pool_stale += 1
                return connection.retire()
            if not self.waiting:
                # what its socket had to say has ended them
                break
            self.grant(connection, <StreamCallbacks>self.waiting.popleft())
        if allowed_none and not self.allows_none():
            # more may wait than it can carry
            self.dial_for_waiting()
        if connection.pool is None or connection.place is self.idle:
            return 0
        if not connection.is_idle():
            return self.put_shared(connection) if connection.free_streams() else 0
        if (self.max_idle == 0 and not self.waiting) or connection.usable_for == 0:
            return connection.retire()
        self.leave_place(connection)
        connection.idle_since = monotonic()
        # requests come and go in waves: what is too much between two of them is closed when it stays too much
        connection.deadline.set(
            self.idle_deadline if len(self.idle) < self.max_idle and not self.is_surplus(connection) else self.surplus_deadline, 0)
        connection.place = self.idle
        self.idle.append(connection)
        return 0

    cdef bint is_surplus(self, PooledConnection connection) except -1:
        cdef PooledConnection other
        if connection.served or connection.free_streams() <= 1:
            return False
        for other in self.shared + self.idle:
            if other is not connection and other.free_streams() > 1:
                return True
        return False

    cdef int put_shared(self, PooledConnection connection) except -1:
        if connection.place is None:
            connection.place = self.shared
            self.shared.append(connection)
        return 0

    cdef int leave_place(self, PooledConnection connection) except -1:
        cdef list place = connection.place
        if place is not None:
            connection.place = None
            place.remove(connection)
        return 0

    cdef int discard(self, PooledConnection connection) except -1:
        if connection.pool is None:
            return 0
        self.store_session(connection)
        connection.pool = None
        connection.deadline.clear()
        self.leave_place(connection)
        self.open -= 1
        if self.open == 0 and self.allows_none():
            # the next one would do the same
            self.fail_waiting(len(self.waiting), WireError(
                f"{self.origin} allowed no stream of HTTP/2, and closed the connection", side="upstream", status=502))
        return self.dial_for_waiting()

    cdef int on_idle_too_long(self, PooledConnection connection) except -1:
        if self.waiting and not connection.free_streams() and not connection.is_ending():
            # they wait until its upstream allows a stream
            return connection.deadline.set(self.idle_deadline, 0)
        return connection.retire()

    cdef int store_session(self, PooledConnection connection) except -1:
        if not connection.seen_back and connection.endpoint.bytes_in and self.on_first_return is not None:
            connection.seen_back = True
            self.on_first_return(connection.endpoint)
        return 0

    cdef object explain_failure(self, PooledConnection connection, object error, bint idle):
        # With TLS 1.3 the handshake is over for us before the upstream has seen our certificate, or that we have none
        if self.on_refusal is None or connection.endpoint.bytes_in or not isinstance(error, SSL_ERROR):
            return None
        return self.on_refusal(error, idle)

    cdef PooledConnection take_ready(self, double idle_seconds):
        cdef PooledConnection connection = self.take_shared() if self.shared else None
        return self.take_idle(idle_seconds) if connection is None else connection

    cdef PooledConnection take_shared(self):
        cdef PooledConnection connection, fullest
        cdef Py_ssize_t room, least = 0
        while True:
            fullest = None
            for connection in self.shared:
                room = connection.free_streams()
                if room and (fullest is None or room < least):
                    fullest = connection
                    least = room
            if fullest is None or fullest.is_live():
                return fullest
            # it is closed when its last stream ends, if that is not done yet
            self.leave_place(fullest)

    cdef PooledConnection take_idle(self, double idle_seconds):
        cdef PooledConnection connection
        cdef Py_ssize_t at = len(self.idle)
        cdef double idle_for
        while at > 0:
            at -= 1
            connection = self.idle[at]
            if not connection.free_streams():
                # its upstream allows no stream now
                continue
            idle_for = monotonic() - connection.idle_since
            if idle_for > idle_seconds:
                # and the others for longer
                return None
            self.idle.pop(at)
            connection.place = None
            connection.deadline.clear()
            if 0 <= connection.usable_for < idle_for:
                connection.retire()
            elif connection.is_live():
                return connection
            else:
                self.explain_failure(connection, connection.endpoint.close_error, True)
                self.counters.pool_stale += 1
                connection.retire()
            at = min(at, <Py_ssize_t>len(self.idle))
        return None

    cdef int grant(self, PooledConnection connection, StreamCallbacks exchange) except -1:
        cdef Stream stream
        connection.served += 1
        if self.allows_none():
            # by now it allows some
            self.streams_expected = connection.free_streams()
        if connection.place is self.idle:
            # it had no room before
            self.leave_place(connection)
            connection.deadline.clear()
        stream = connection.open_stream(exchange)
        if connection.free_streams():
            self.put_shared(connection)
        return exchange.on_pool_ready(stream)

    cdef int fail_waiting(self, Py_ssize_t most, object error) except -1:
        while most > 0 and self.waiting:
            most -= 1
            (<StreamCallbacks>self.waiting.popleft()).on_pool_failure(error)
        return 0

    cdef bint wants_dial(self) noexcept:
        if self.allows_none():
            # its SETTINGS may change. A second connection would have the same
            return self.open == 0 and len(self.waiting) > 0
        if self.first_answer is not None and self.dialling >= FIRST_DIALS and not self.is_answer_late:
            return False
        return self.dialling * self.streams_expected < len(self.waiting)

    cdef int dial_for_waiting(self) except -1:
        while self.wants_dial() and self.open < self.max_open:
            self.open += 1
            self.dialling += 1
            self.counters.pool_misses += 1
            try:
                self.dial(self)
            except Exception as error:
                # it did not even begin
                self.failed(error)
        return 0

    # ---- the control plane's side

    def connected(self, PooledConnection connection not None):
        """A dialled connection is ready for its first stream."""
        connection.endpoint.arena.check_thread()
        cdef object refusal = None
        cdef Py_ssize_t room
        if not connection.begin():
            # the next one would do the same
            refusal = self.explain_failure(connection, connection.endpoint.close_error, False)
            connection.abort()
            self.failed(refusal or WireError(f"{self.origin} closed the connection, or spoke, before it was asked", side="upstream",
                                             status=502))
            return
        self.dialling -= 1
        connection.pool = self
        room = connection.free_streams()
        self.expect(room)
        self.release(connection)
        # more may wait than it can carry
        self.dial_for_waiting()

    def expect(self, Py_ssize_t streams):
        """It is known what the origin speaks: a new connection is likely to carry so many streams."""
        self.streams_expected = streams
        self.first_answer = None
        self.answer_deadline.clear()

    def failed(self, error):
        """A dial ended in `error`, which those who waited for it are told, unless there is a connection for them that they would have done
        without."""
        cdef PooledConnection connection
        cdef Py_ssize_t most
        self.dialling -= 1
        self.open -= 1
        # the first ones, as many as no other dial is for
        most = <Py_ssize_t>len(self.waiting) - self.dialling * self.streams_expected
        if self.allows_none() and self.open:
            # they wait for a connection that is there, until its upstream allows a stream
            most = 0
        elif not self.allows_none():
            most = max(1, min(self.streams_expected, most))
        while most > 0 and self.waiting:
            most -= 1
            connection = self.take_ready(INFINITY)
            if self.waiting and connection is not None:
                self.counters.pool_hits += 1
                self.grant(connection, <StreamCallbacks>self.waiting.popleft())
            elif connection is not None:
                self.release(connection)
            elif self.waiting:
                self.fail_waiting(1, error)
        self.dial_for_waiting()

    def limit(self, Py_ssize_t max_open, Py_ssize_t max_idle):
        """Other limits from now on: what is idle beyond them is closed, what is in use when it comes back, and what waits may be served."""
        cdef PooledConnection connection
        self.max_open = max_open
        self.max_idle = max_idle
        for connection in list(self.idle):
            if len(self.idle) <= max_idle and self.open <= max_open:
                break
            if self.waiting and not connection.free_streams():
                # they wait until its upstream allows a stream
                continue
            connection.retire()
        self.dial_for_waiting()

    @property
    def idle_count(self):
        """How many connections have no stream."""
        return len(self.idle)

    @property
    def waiting_count(self):
        """How many requests wait for a stream."""
        return len(self.waiting)

    def __repr__(self):
        return f"<OriginPool {self.origin}: {self.open} open, {self.idle_count} idle, {len(self.waiting)} waiting>"
