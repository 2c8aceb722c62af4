"""An upstream's connection that speaks HTTP/2: it opens streams, and says how many more of them it can carry.

Nothing is asked of the upstream without need: no PING on a timer unless a key says so, and none while something comes (gRPC servers
close connections for less). A connection that was silent for a second is looked at before it gets a stream, as an idle one of HTTP/1
is. After ten seconds a PING goes with the stream, and an upstream that says nothing from then on is gone.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.time cimport monotonic
from libc.stdint cimport int64_t, uint32_t

from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport (
    PROCESSED_HTTP1_ONLY, PROCESSED_NOT, PROCESSED_UNLIKELY, HttpConnection, Stream, StreamCallbacks,
)
from soth_mitm._dataplane.http1.connection_auth cimport authenticates_connection
from soth_mitm._dataplane.http1.framing cimport body_of_stream, body_without_framing
from soth_mitm._dataplane.http2.extended_connect cimport switch_of
from soth_mitm._dataplane.http2.frame cimport (
    CANCEL, HTTP_1_1_REQUIRED, MAX_STREAM, NO_ERROR, REFUSED_STREAM, error_code_name,
)
from soth_mitm._dataplane.http2.limits cimport LIMIT_SETTINGS, LIMIT_STALL
from soth_mitm._dataplane.http2.session cimport OUTLET_MOST
from soth_mitm._dataplane.http2.session_stream cimport SessionStream
from soth_mitm._dataplane.http2.stream cimport DRIVER_STAGES_END, Http2Stream, SessionDriver
from soth_mitm._dataplane.http2.stream_state cimport is_closed
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.memory.view cimport View, view_of
from soth_mitm._dataplane.transport.callbacks cimport PAUSE_SETUP
from soth_mitm._dataplane.transport.lingering_close cimport close_gracefully
from soth_mitm._dataplane.transport.outbound_endpoint cimport OutboundEndpoint
from soth_mitm._dataplane.upstream.pool cimport PooledConnection
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits

from soth_mitm.errors import WireError


cdef enum:
    STAGE_IDLE = 0             # the pool's
    STAGE_PING = DRIVER_STAGES_END
    STAGE_KEEPALIVE

    LOOK_SECONDS = 1           # of silence, after which the socket is read before a stream is opened
    PING_SECONDS = 10          # of silence, after which a PING goes with a stream


@cython.final
cdef class Http2ClientConnection(PooledConnection):
    """An upstream's connection over `endpoint`, which is connected and whose TLS handshake is over.

    It may be given to its pool once the upstream's SETTINGS came, which `start` tells.
    """

    def __cinit__(self, OutboundEndpoint endpoint not None, Settings settings not None):
        self.endpoint = endpoint
        self.facts = endpoint.facts
        self.settings = settings
        self.usable_for = -1
        self.deadline = Deadline(self)
        self.ping_deadline = Deadline(self)
        self.driver = ClientDriver.__new__(ClientDriver)
        self.driver.open(self, settings, False)

    def start(self, on_ready not None):
        """Begin to speak. Calls `on_ready(None)` once when the upstream's SETTINGS came, or `on_ready(error)` when they will not come."""
        self.endpoint.arena.check_thread()
        self.on_ready = on_ready
        if PooledConnection.is_ending(self):
            self.on_closed(self.endpoint, self.endpoint.close_error)
            return
        self.endpoint.callbacks = self
        self.driver.begin()
        self.heard_at = self.looked_at = self.kept_at = self.driver.session.now
        if self.settings.http2_keepalive is not None:
            self.keepalive_deadline = Deadline(self)
            self.keepalive_deadline.set(self.settings.http2_keepalive, STAGE_KEEPALIVE)
        self.driver.feed()
        # paused since its handshake
        self.endpoint.resume_reading(PAUSE_SETUP)

    @property
    def extended_connect(self):
        """Whether the upstream allows extended CONNECT (RFC 8441). To be asked when it is ready."""
        return self.driver.session is not None and bool(self.driver.session.peers.connect_protocol)

    @property
    def open_streams(self):
        """How many streams are open on it."""
        return self.opened

    cdef int tell_ready(self, object error) except -1:
        on_ready, self.on_ready = self.on_ready, None
        if on_ready is not None:
            on_ready(error)
        return 0

    cdef int on_settings(self) except -1:
        if self.on_ready is None:
            return 0
        self.is_counted = True
        self.settings.counters.http2_upstream_connections += 1
        return self.tell_ready(None)

    # ---- for the pool

    cdef bint begin(self) except -1:
        return not self.is_ending() and self.driver.session.is_ready

    cdef bint is_ending(self) noexcept:
        if self.is_dead or self.driver.has_lost or PooledConnection.is_ending(self):
            return True
        return (self.driver.session.has_failed or self.driver.session.peer_goes or self.driver.session.is_draining
                or self.driver.session.next_own > MAX_STREAM)

    cdef Py_ssize_t free_streams(self) noexcept:
        if self.is_ending() or self.driver.outlet.unsent() > OUTLET_MOST:
            # heads wait for no room. An upstream that does not read them is sent no more
            return 0
        if self.driver.session.ping_linger:
            # a slot that lingers is free after some time
            self.driver.session.now = monotonic()
        return max(<Py_ssize_t>0, self.driver.session.capacity() - self.unsent)

    cdef bint is_idle(self) noexcept:
        return self.opened == 0 and (self.driver.has_lost or not self.driver.session.streams)

    cdef bint is_live(self) except -1:
        cdef double now
        if self.is_ending():
            return False
        now = monotonic()
        if now - max(self.heard_at, self.looked_at) > LOOK_SECONDS and not self.driver.is_feeding:
            self.looked_at = now
            self.is_looking = True
            try:
                if not (<OutboundEndpoint>self.endpoint).read_once():
                    self.is_dead = True
            finally:
                self.is_looking = False
        return self.free_streams() > 0

    cdef Stream open_stream(self, StreamCallbacks exchange):
        cdef Http2ClientStream stream = Http2ClientStream.__new__(Http2ClientStream)
        stream.owner = self
        stream.driver = self.driver
        stream.session = self.driver.session
        stream.is_upstream = True
        stream.callbacks = exchange
        self.opened += 1
        self.unsent += 1
        return stream

    cdef int retire(self) except -1:
        if self.pool is not None:
            self.pool.discard(self)
        if self.endpoint.is_closing():
            return 0
        if not self.driver.has_lost:
            self.driver.session.now = monotonic()
            self.driver.session.goaway(NO_ERROR)
        self.stop(None)
        return close_gracefully(self.endpoint, self.settings)

    cdef int look_for_room(self) except -1:
        if self.is_looking:
            # the pool has asked, and is told
            return 0
        if self.pool is None:
            return self.retire() if self.on_ready is None and self.is_idle() else 0
        if self.place is self.pool.idle:
            return self.pool.offer(self) if self.is_ending() or self.pool.waiting else 0
        return self.pool.offer(self) if self.pool.waiting or self.is_idle() else 0

    cdef int offer_room(self) except -1:
        if self.pool is None or self.is_ending() or not (self.pool.waiting or self.place is None):
            return 0
        return self.pool.offer(self)

    cdef int stream_left(self) except -1:
        self.opened -= 1
        if not self.driver.has_lost and self.driver.session.ping_linger:
            # its slot is free when the upstream has answered
            self.await_ping()
        if self.driver.is_feeding or self.driver.has_lost:
            # look_for_room() follows, or it is discarded
            return 0
        return self.look_for_room() if self.pool is None else self.pool.release(self)

    # ---- what the endpoint says

    cdef int on_data(self, object endpoint) except -1:
        self.heard_at = monotonic()
        return self.driver.feed()

    cdef int on_flushed(self, object endpoint) except -1:
        self.driver.serve()
        return self.offer_room()

    cdef int on_writable(self, object endpoint, bint now) except -1:
        if not now:
            return 0
        self.driver.serve()
        return self.offer_room()

    cdef int on_eof(self, object endpoint, bint clean) except -1:
        self.is_dead = True
        self.stop(ConnectionResetError("the upstream closed the connection"))
        return self.endpoint.close()

    cdef int on_closed(self, object endpoint, object error) except -1:
        cdef object refusal = None
        self.is_dead = True
        if self.pool is not None and error is not None:
            refusal = self.pool.explain_failure(self, error, self.is_idle())
        self.stop(refusal or error)
        if self.pool is not None:
            self.pool.discard(self)
        self.driver.detach()
        return 0

    cdef int stop(self, object error) except -1:
        self.ping_deadline.clear()
        if self.keepalive_deadline is not None:
            self.keepalive_deadline.clear()
        if self.is_counted:
            self.is_counted = False
            self.settings.counters.http2_upstream_connections -= 1
        self.driver.lose_streams(error or ConnectionResetError("the upstream closed the connection"))
        return self.tell_ready(error or WireError(
            "the upstream closed the connection before it sent its SETTINGS", side="upstream", status=502))

    # ---- PINGs

    cdef int on_deadline(self, int stage) except -1:
        if self.endpoint.is_closing():
            return 0
        if stage == STAGE_IDLE:
            return PooledConnection.on_deadline(self, stage)
        if stage < DRIVER_STAGES_END:
            return self.driver.on_stage(stage)
        if self.driver.has_lost:
            return 0
        self.driver.session.now = monotonic()
        return self.keep_alive() if stage == STAGE_KEEPALIVE else self.check_ping()

    cdef int probe(self) except -1:
        if self.driver.session.now - self.heard_at > PING_SECONDS and self.ping_deadline.queue is None:
            self.driver.session.ping()
            return self.await_ping()
        return 0

    cdef int await_ping(self) except -1:
        if self.ping_deadline.queue is not None:
            return 0
        self.pinged_at = self.driver.session.now
        return self.ping_deadline.set(self.settings.http2_ping, STAGE_PING)

    cdef int check_ping(self) except -1:
        if self.driver.session.unanswered_for() == 0:
            return 0
        if self.heard_at > self.pinged_at:
            # slow, and not gone: the answer may stand behind much content
            self.await_ping()
            return self.look_for_room()
        self.settings.counters.http2_dead_connections += 1
        error = ConnectionResetError("the upstream did not answer a PING in time (http2.ping_timeout_ms)")
        self.is_dead = True
        self.stop(error)
        return self.endpoint.abort(error)

    cdef int keep_alive(self) except -1:
        if self.heard_at <= self.kept_at and self.ping_deadline.queue is None:
            self.driver.session.ping()
            self.await_ping()
        self.kept_at = self.driver.session.now
        return self.keepalive_deadline.set(self.settings.http2_keepalive, STAGE_KEEPALIVE)


@cython.final
cdef class ClientDriver(SessionDriver):
    """The session of an upstream's connection."""

    cdef int on_ready(self) except -1:
        return (<Http2ClientConnection>self.connection).on_settings()

    cdef int on_stream_head(self, SessionStream stream, Head head, bint https, bint is_end) except -1:
        cdef Http2ClientStream owner = <Http2ClientStream>stream.owner
        return 0 if owner is None else owner.on_response_head(head, is_end)

    cdef int on_going_away(self, uint32_t last, uint32_t code) except -1:
        self.settings.counters.http2_goaways_received += 1
        return 0

    cdef int on_failed(self, uint32_t code, str text) except -1:
        cdef int status = 504 if self.session.limit_hit == LIMIT_SETTINGS or self.session.limit_hit == LIMIT_STALL else 502
        self.failure = WireError(
            f"the HTTP/2 connection to the upstream ended with {error_code_name(code)}: {text}", side="upstream", status=status)
        return 0

    cdef int count_in(self, Py_ssize_t count) except -1:
        self.settings.counters.bytes_from_upstreams += count
        return 0

    cdef int on_fed(self) except -1:
        return (<Http2ClientConnection>self.connection).look_for_room()

    cdef int on_session_over(self) except -1:
        cdef Http2ClientConnection connection = <Http2ClientConnection>self.connection
        connection.stop(self.failure)
        if connection.pool is not None:
            connection.pool.discard(connection)
        return close_gracefully(self.endpoint, self.settings)


@cython.final
cdef class Http2ClientStream(Http2Stream):
    """A request that goes out and its response that comes in."""

    cdef int send_request(self, Head head, str authority, bint keep_upgrade, int64_t length, HeadEdits edits) except -1:
        cdef Http2ClientConnection owner = self.owner
        cdef SessionStream stream
        cdef bytes name = authority.encode()
        cdef bint is_end = length == 0 and not keep_upgrade
        cdef View protocol = view_of(NULL, 0)
        if length >= 0 and length != head.content_length and (length or head.chunked):
            # it is known by now
            edits = HeadEdits() if edits is None else edits
            edits.frame_with_length(length)
        if keep_upgrade:
            # RFC 8441 section 5: the key belongs to HTTP/1.1
            self.upgrade = head
            edits = HeadEdits() if edits is None else edits
            edits.put(b"sec-websocket-key", None)
            protocol = view_of(b"websocket", 9)
        self.method = head.method
        owner.unsent -= 1
        self.session.now = monotonic()
        stream = self.session.open(head, edits, owner.endpoint.tls is not None, view_of(PyBytes_AS_STRING(name), len(name)),
                                   protocol, is_end)
        if stream is None:
            raise AssertionError("a stream was granted on a connection that has no room for it")
        self.attach(self.driver, stream, self.callbacks.settings)
        self.note_head(is_end)
        return owner.probe()

    cdef int on_response_head(self, Head head, bint is_end) except -1:
        # nothing else may hold it, and it may end in the call
        cdef StreamCallbacks exchange = self.callbacks
        self.has_heard = True
        if exchange is None:
            return 0
        self.owner.has_worked = True
        if self.upgrade is not None and 200 <= head.status < 300:
            body_without_framing(&self.body)
            self.has_all = is_end
            head = switch_of(self.upgrade, head)
        elif head.status >= 200:
            body_of_stream(&self.body, head, self.method)
            if is_end:
                self.end_at_head()
        return exchange.on_head(self, head)

    # ---- how it ends

    cdef int on_stream_reset(self, uint32_t code, bint by_peer) except -1:
        cdef Http2ClientConnection owner = self.owner
        if by_peer and not self.has_heard and owner is not None:
            if code == HTTP_1_1_REQUIRED:
                self.processed = PROCESSED_HTTP1_ONLY
            elif code == REFUSED_STREAM and (
                    owner.has_worked or not self.session.peer_goes or self.session.peer_code == NO_ERROR):
                # a server that says nothing but that it is ill would be asked again and again
                self.processed = PROCESSED_NOT
        return Http2Stream.on_stream_reset(self, code, by_peer)

    cdef int on_lost(self, object error) except -1:
        if not self.has_heard and self.owner is not None and self.owner.has_worked:
            self.processed = PROCESSED_UNLIKELY
        return Http2Stream.on_lost(self, error)

    cdef int let_go(self) except -1:
        cdef Http2ClientConnection owner = self.owner
        if owner is None:
            return 0
        self.owner = None
        if self.stream is None:
            owner.unsent -= 1
        else:
            if not is_closed(self.stream.state) and not self.session.is_ending(self.stream):
                # the upstream has said all, but for the end
                self.session.reset(self.stream, CANCEL)
            self.session.release(self.stream)
        return owner.stream_left()

    cdef int release(self, Head request, Head response, HttpConnection client) except -1:
        if self.stream is None:
            # it was not used
            self.callbacks = None
            return self.let_go()
        return Http2Stream.release(self, request, response, client)

    cdef int reset(self, object error) except -1:
        if self.stream is None:
            return self.release(None, None, None)
        return Http2Stream.reset(self, error)

    cdef bint can_switch(self) noexcept:
        return self.session.peers.connect_protocol

    cdef int unprocessed(self) noexcept:
        return self.processed

    cdef bint can_say_unprocessed(self) noexcept:
        return True

    cdef bint authenticates(self, Head request, Head response) noexcept:
        # whatever it answers: users are known by their requests here, not by their connections
        return response is None and authenticates_connection(request, None)
