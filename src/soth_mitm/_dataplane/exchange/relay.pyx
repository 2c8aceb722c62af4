"""Tunnels: the blind relay between two connections (RFC 9110 section 9.3.6)."""

cimport cython

from soth_mitm._dataplane.exchange.flow_recording cimport FlowRecording
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.transport.lingering_close cimport close_gracefully
from soth_mitm._dataplane.transport.callbacks cimport PAUSE_PEER_SLOW, EndpointCallbacks
from soth_mitm._dataplane.http.settings cimport Settings


@cython.final
cdef class Tunnel(EndpointCallbacks):
    """Relays between `client` and `upstream` from now on, beginning with what lies in their inboxes.

    `on_end()` is called once. The tunnel ends when both sides have ended, when one is lost, or when nothing has moved for
    `tunnel_idle`; in a drain, for the much shorter `tunnel_quiet`. `listen` comes before `start` where the client's first bytes are to be
    examined.
    """

    def __cinit__(self, Settings settings not None, Endpoint client not None, Endpoint upstream not None, on_end):
        self.settings = settings
        self.client = client
        self.upstream = upstream
        self.on_end = on_end
        self.deadline = Deadline(self)

    def listen(self):
        """Relay what the upstream says. What the client says stays in its read buffer, and its callbacks are told of it, until `start`."""
        self.settings.arena.check_thread()
        self.examiner = self.client.callbacks
        self.client.callbacks = self
        self.upstream.callbacks = self
        self.wait()
        if self.client.is_gone() or self.upstream.is_gone():
            self.stop(None)
            return
        self.forward(self.upstream)
        if self.upstream.has_told_eof():
            self.on_eof(self.upstream, True)
        if not self.client.is_write_paused():
            self.upstream.resume_all()

    @property
    def upstream_spoke(self):
        """Whether the upstream has said anything."""
        return self.upstream.bytes_in > 0

    def record(self, FlowRecording recording not None):
        """Have the bytes of the tunnel counted in `recording`, from the first one on."""
        self.recording = recording
        # what the upstream said while the client was listened to
        recording.count(True, self.upstream.bytes_in - self.upstream.read_buffer.size())

    def dismiss(self):
        """Give the client back to its examiner, with all that it said, and close the upstream, which got nothing of it."""
        self.settings.arena.check_thread()
        if self.over:
            return
        self.over = True
        self.deadline.clear()
        self.client.callbacks, self.examiner = self.examiner, None
        self.upstream.close()

    def start(self):
        """Take over both endpoints."""
        self.settings.arena.check_thread()
        cdef Endpoint endpoint
        cdef tuple unheard = (self.client, self.upstream)
        if self.over:
            return
        self.settings.counters.tunnels += 1
        if self.examiner is not None:
            self.examiner = None
            unheard = (self.client,)
        self.client.callbacks = self
        self.upstream.callbacks = self
        self.wait()
        for endpoint in unheard:
            if endpoint.is_gone():
                self.stop(None)
                return
            self.forward(endpoint)
            if endpoint.has_told_eof():
                self.on_eof(endpoint, True)
        for endpoint in (self.client, self.upstream):
            if self.across(endpoint).is_write_paused():
                endpoint.pause_reading(PAUSE_PEER_SLOW)
                endpoint.resume_reading(~PAUSE_PEER_SLOW)
            else:
                endpoint.resume_all()

    def drain(self):
        """End as soon as nothing moves."""
        self.settings.arena.check_thread()
        if not self.over:
            self.wait()

    cdef int wait(self) except -1:
        return self.deadline.set(self.settings.tunnel_quiet if self.settings.draining else self.settings.tunnel_idle, 0)

    cdef Endpoint across(self, object endpoint):
        return self.upstream if endpoint is self.client else self.client

    cdef int forward(self, Endpoint source) except -1:
        cdef Endpoint target = self.across(source)
        cdef Py_ssize_t size = source.read_buffer.size()
        if size == 0 or self.over:
            return 0
        if source is self.client:
            self.settings.counters.bytes_from_clients += size
            self.settings.counters.bytes_to_upstreams += size
        else:
            self.settings.counters.bytes_from_upstreams += size
            self.settings.counters.bytes_to_clients += size
        if self.recording is not None:
            self.recording.count(source is self.upstream, size)
        target.send(source.read_buffer.data(), size)
        source.read_buffer.consume(size)
        target.flush()
        if target.is_write_paused():
            source.pause_reading(PAUSE_PEER_SLOW)
        return 0

    cdef int on_data(self, object endpoint) except -1:
        if self.examiner is not None and endpoint is self.client:
            return self.examiner.on_data(endpoint)
        self.wait()
        return self.forward(<Endpoint>endpoint)

    cdef int on_writable(self, object endpoint, bint now) except -1:
        if now:
            self.wait()
            self.across(endpoint).resume_reading(PAUSE_PEER_SLOW)
        else:
            self.across(endpoint).pause_reading(PAUSE_PEER_SLOW)
        return 0

    cdef int on_eof(self, object endpoint, bint clean) except -1:
        cdef Endpoint other = self.across(endpoint)
        if self.examiner is not None and endpoint is self.client:
            return self.examiner.on_eof(endpoint, clean)
        self.ends += 1
        # protocols that are switched to say themselves when they end, and what came before a cut is theirs all the same
        if self.ends == 2 or not clean:
            return self.stop(None)
        if not other.is_gone():
            other.end_writing()
        return 0

    cdef int on_closed(self, object endpoint, object error) except -1:
        return self.stop(error)

    cdef int on_deadline(self, int stage) except -1:
        if self.settings.draining and (self.client.is_write_paused() or self.upstream.is_write_paused()):
            # it is not quiet: a slow reader has yet to take what came, and the drain has a deadline of its own
            return self.wait()
        return self.stop(None)

    def abort(self):
        """Cut both connections now."""
        self.settings.arena.check_thread()
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
                close_gracefully(endpoint, self.settings)
            else:
                endpoint.abort(error)
        return 0
