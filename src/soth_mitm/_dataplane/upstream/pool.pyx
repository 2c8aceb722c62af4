"""Upstream connections of one origin. Checking out an idle one is a list pop and a look at its socket; dialling is the control plane's."""

import ssl
from collections import deque

cimport cython
from cpython.time cimport monotonic
from libc.math cimport INFINITY
from libc.stdint cimport intptr_t

from soth_mitm._dataplane.memory.deadline cimport Deadline, DeadlineQueue
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.wire.head cimport FIELD_KEEP_ALIVE, Head
from soth_mitm._dataplane.transport.callbacks cimport EndpointCallbacks
from soth_mitm._dataplane.http.counters cimport Counters
from soth_mitm._dataplane.wire.scan cimport soth_equals_lower

from soth_mitm.errors import WireError

cdef extern from "liveness.h" nogil:
    enum:
        SOTH_READ_ENDED
        SOTH_READ_NOTHING

    Py_ssize_t soth_read_now(intptr_t socket, char* p, size_t n) noexcept

cdef enum:
    LOOK_SIZE = 16384      # what is taken at once of bytes that the loop has not seen

SSL_ERROR = ssl.SSLError


cdef double keep_alive_seconds(const char* value, Py_ssize_t length) noexcept nogil:
    """Return the number behind `timeout=` in a Keep-Alive field, -1 if there is none."""
    cdef Py_ssize_t at = 0, digits = 0
    cdef double seconds = 0
    while at + 8 < length:
        if soth_equals_lower(value + at, b"timeout=", 8) and (at == 0 or value[at - 1] in (c" ", c"\t", c",", c";")):
            at += 8
            while at + digits < length and digits < 9 and c"0" <= value[at + digits] <= c"9":
                seconds = seconds * 10 + (value[at + digits] - c"0")
                digits += 1
            return seconds if digits else -1
        at += 1
    return -1


# not final: proxy/ adds asyncio.BufferedProtocol
cdef class Upstream(Endpoint):
    """A connection to an origin, which serves one request after another, for any client.

    Between two requests it must be silent. The loop tells what it has seen, but between its last look and this moment a FIN, a RST or
    bytes may have come, and a response that was there before its request would be taken for the answer to whichever comes next. So the
    socket itself is read before each reuse, for the price of one system call. Plain bytes are nobody's, and end the connection. Bytes of
    TLS may be a session ticket, which many servers send when they like: the engine takes them, and only if it finds data or an end in
    them, or half a record, of which nobody can tell what it will be, is the connection done for.
    """

    def connection_made(self, transport):
        Endpoint.connection_made(self, transport)
        self.socket = transport.get_extra_info("socket").fileno()

    def __cinit__(self, *args, **kwargs):
        self.usable_for = -1

    cdef int obey(self, Head response) except -1:
        cdef double seconds = -1
        cdef int index = response.find_known(FIELD_KEEP_ALIVE) if response.has_hop else -1
        if index >= 0:
            seconds = keep_alive_seconds(response.base() + response.fields[index].value, response.fields[index].value_len)
        if seconds >= 0:
            # the last second is for what is under way when it closes
            self.usable_for = seconds - min(1.0, seconds / 2)
        return 0

    cdef int is_live(self) except -1:
        # not the arena's scratch space: there may lie what the client sent behind the request that wants to know
        cdef char seen[LOOK_SIZE]
        cdef Py_ssize_t count
        cdef int reads = 0
        # twice: a FIN may stand behind a ticket; who still sends then has not finished what he is saying
        while reads < 2:
            reads += 1
            if self.gone or self.closing or self.eof_delivered or self.read_buffer.size() or (self.tls is not None and self.tls.partial):
                return False
            if self.tls is not None and self.tls.has_unread():
                return False
            count = soth_read_now(self.socket, seen, LOOK_SIZE)
            if count == SOTH_READ_NOTHING:
                return True
            if count == SOTH_READ_ENDED or self.tls is None:
                return False
            self.take_ciphertext(seen, count)
        return False

    cdef int hear_last_words(self) except -1:
        cdef char said[LOOK_SIZE]
        cdef Py_ssize_t count
        while not self.reading_paused and not self.discarding and not self.waits_turn:
            count = soth_read_now(self.socket, said, LOOK_SIZE)
            if count <= 0:
                break
            if self.tls is not None:
                self.take_ciphertext(said, count)
                continue
            self.read_buffer.append(said, count)
            self.bytes_in += count
            self.has_unreported = True
            self.deliver()
        return 0

    def connection_lost(self, error):
        if isinstance(error, OSError) and not self.closing and (self.tls is None or self.tls.secured):
            # Who refuses us (an upload by its answer, our TLS by an alert) and closes on what we had sent resets the connection, and what
            # we write meets that before his words are read
            self.closing = True
            self.hear_last_words()
        Endpoint.connection_lost(self, error)
        if self.pool is not None:
            self.pool.forget(self)
        # which refers to us: what the TLS engine holds would be left to the garbage collector
        self.parked = None


@cython.final
cdef class Parked(EndpointCallbacks):
    """What an idle upstream connection answers to: it is closed when it ends, speaks unasked, or has been idle for too long."""

    def __cinit__(self, Upstream upstream not None):
        self.upstream = upstream
        self.deadline = Deadline(self)

    cdef int on_data(self, object endpoint) except -1:
        self.upstream.abort(None)
        return 0

    cdef int on_eof(self, object endpoint, bint clean) except -1:
        self.upstream.close()
        return 0

    cdef int on_closed(self, object endpoint, object error) except -1:
        self.deadline.clear()
        if error is not None and self.upstream.pool is not None:
            self.upstream.pool.blame(self.upstream, error, True)
        return 0

    cdef int on_deadline(self, int stage) except -1:
        cdef Upstream upstream = self.upstream
        if upstream.pool is not None:
            upstream.pool.forget(upstream)
        upstream.close()
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

    cdef int claim(self, EndpointCallbacks waiter) except -1:
        return self.claim_fresh(waiter, INFINITY)

    cdef int claim_fresh(self, EndpointCallbacks waiter, double idle_seconds) except -1:
        cdef Upstream upstream = self.take_idle(idle_seconds)
        if upstream is not None:
            self.counters.pool_hits += 1
            return self.hand_over(upstream, waiter)
        if self.idle and self.open >= self.max_open:
            # the one that was unused for longest makes room
            self.retire(<Upstream>self.idle[0])
        return self.wait(waiter)

    cdef int wait(self, EndpointCallbacks waiter) except -1:
        self.waiting.append(waiter)
        self.dial_for_waiting()
        if self.dialling < len(self.waiting):
            self.counters.pool_waits += 1
        return 0

    cdef int claim_new(self, EndpointCallbacks waiter) except -1:
        if self.open >= self.max_open:
            return self.claim(waiter)
        self.waiting.append(waiter)
        return self.dial_for_waiting()

    cdef int withdraw(self, EndpointCallbacks waiter) except -1:
        if waiter in self.waiting:
            self.waiting.remove(waiter)
        return 0

    cdef int give_back(self, Upstream upstream) except -1:
        self.keep_session(upstream)
        if upstream.gone or upstream.closing or upstream.eof_delivered or self.open > self.max_open:
            return self.retire(upstream)
        # what was not read of the last response, because its client was slow, may be more than that response
        upstream.callbacks = upstream.parked
        upstream.resume_reading()
        if upstream.gone or upstream.closing or upstream.eof_delivered:
            return self.forget(upstream)
        if self.waiting:
            if upstream.served and not upstream.is_live():
                self.counters.pool_stale += 1
                return self.retire(upstream)
            return self.hand_over(upstream, <EndpointCallbacks>self.waiting.popleft())
        if self.max_idle == 0 or upstream.usable_for == 0:
            return self.retire(upstream)
        # requests come and go in waves: what is too much between two of them is closed when it stays too much
        upstream.parked.deadline.set(self.idle_deadline if len(self.idle) < self.max_idle else self.surplus_deadline, 0)
        upstream.idle_since = monotonic()
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

    cdef int retire(self, Upstream upstream) except -1:
        self.forget(upstream)
        return upstream.close()

    cdef Upstream take_idle(self, double idle_seconds):
        cdef Upstream upstream
        cdef double idle_for
        while self.idle:
            upstream = self.idle[len(self.idle) - 1]
            idle_for = monotonic() - upstream.idle_since
            if idle_for > idle_seconds:
                # and the others for longer
                return None
            self.idle.pop()
            upstream.parked.deadline.clear()
            if 0 <= upstream.usable_for < idle_for:
                self.retire(upstream)
                continue
            if upstream.is_live():
                return upstream
            self.blame(upstream, upstream.close_error, True)
            self.counters.pool_stale += 1
            self.retire(upstream)
        return None

    cdef int hand_over(self, Upstream upstream, EndpointCallbacks waiter) except -1:
        upstream.served += 1
        upstream.callbacks = waiter
        return waiter.on_pool_ready(upstream)

    cdef int dial_for_waiting(self) except -1:
        while self.dialling < len(self.waiting) and self.open < self.max_open:
            self.open += 1
            self.dialling += 1
            self.counters.pool_misses += 1
            try:
                self.dial(self)
            except Exception as error:
                # it did not even begin
                self.failed(error)
        return 0

    # --- the control plane's side

    def connected(self, Upstream upstream not None):
        """A dialled connection is ready for its first request."""
        upstream.arena.check_thread()
        cdef object refusal = None
        if not upstream.gone:
            upstream.parked = Parked(upstream)
            upstream.callbacks = upstream.parked
        # held since its handshake
        upstream.resume_reading()
        if upstream.gone or upstream.closing or upstream.eof_delivered or upstream.read_buffer.size() or upstream.waits_turn:
            # the next one would do the same
            refusal = self.blame(upstream, upstream.close_error, False)
            upstream.abort()
            self.failed(refusal or WireError(f"{self.origin} closed the connection, or spoke, before it was asked", side="upstream",
                                             status=502))
            return
        self.dialling -= 1
        upstream.pool = self
        self.give_back(upstream)

    def failed(self, error):
        """A dial ended in `error`, which the first waiter is told, unless there is a connection for it that it would have done without."""
        cdef Upstream upstream
        self.dialling -= 1
        self.open -= 1
        if self.waiting:
            upstream = self.take_idle(INFINITY)
            if self.waiting and upstream is not None:
                self.counters.pool_hits += 1
                self.hand_over(upstream, <EndpointCallbacks>self.waiting.popleft())
            elif upstream is not None:
                self.give_back(upstream)
            elif self.waiting:
                (<EndpointCallbacks>self.waiting.popleft()).on_pool_failure(error)
        self.dial_for_waiting()

    def limit(self, Py_ssize_t max_open, Py_ssize_t max_idle):
        """Other limits from now on: what is idle beyond them is closed, what is in use when it comes back, and who waits may be served."""
        self.max_open = max_open
        self.max_idle = max_idle
        while self.idle and (len(self.idle) > max_idle or self.open > max_open):
            self.retire(<Upstream>self.idle[0])
        self.dial_for_waiting()

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
