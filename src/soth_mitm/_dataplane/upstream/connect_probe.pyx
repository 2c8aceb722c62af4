"""Makes sure that an upstream can be reached, and that something is known of it, before a client is told so."""

cimport cython

from soth_mitm._dataplane.exchange.states cimport EXPIRY_ACQUIRE, EXPIRY_HTTP2_NO_STREAMS, expiry_rule
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport Stream, StreamCallbacks
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.upstream.pool cimport OriginPool

from soth_mitm.errors import WireError


@cython.final
cdef class ConnectProbe(StreamCallbacks):
    """Acquires a stream of `pool` and releases it as soon as it is there.

    `future` ends with the facts of the upstream's connection, or with the error that the dial ended in, or with a WireError (503, or 504
    if the upstream allows no stream) when none has become free after the duration of `settings.claim`.
    """

    def __cinit__(self, Settings settings not None, OriginPool pool not None, future):
        self.settings = settings
        self.pool = pool
        self.future = future
        self.deadline = Deadline(self)
        self.deadline.set(settings.claim, 0)
        pool.acquire(self)

    def close(self):
        """Wait no more. Harmless when the connection has come already."""
        self.deadline.clear()
        self.pool.cancel(self)

    cdef int on_pool_ready(self, object stream) except -1:
        self.deadline.clear()
        if not self.future.done():
            self.future.set_result((<Stream>stream).connection().facts)
        return (<Stream>stream).release(None, None, None)

    cdef int on_pool_failure(self, object error) except -1:
        self.deadline.clear()
        if not self.future.done():
            self.future.set_exception(error)
        return 0

    cdef int on_deadline(self, int stage) except -1:
        self.pool.cancel(self)
        self.pool.counters.upstream_timeouts += 1
        _, status, _, text = expiry_rule(EXPIRY_HTTP2_NO_STREAMS if self.pool.allows_none() else EXPIRY_ACQUIRE)
        return self.on_pool_failure(WireError(text.replace("{origin}", str(self.pool.origin)), side="upstream", status=status))
