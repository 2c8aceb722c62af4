"""A client's connection that speaks HTTP/2: its streams, how it is drained, and its end (RFC 9113).

Each stream is an exchange with a decision and deadlines of its own. A stream counts against http2_max_concurrent_streams until its last
hook has returned, whatever its client has done to it by then.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.time cimport monotonic
from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.exchange cimport Exchange, new_exchange
from soth_mitm._dataplane.exchange.stream_tunnel cimport StreamTunnel, new_endpoint_stream, new_stream_tunnel
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport LENGTH_AS_IS, HttpConnection, Stream
from soth_mitm._dataplane.http1.connection_auth cimport authenticates_connection
from soth_mitm._dataplane.http1.encoder cimport text_line
from soth_mitm._dataplane.http1.framing cimport body_end, body_of_stream, body_without_framing
from soth_mitm._dataplane.http1.stream cimport Http1Stream
from soth_mitm._dataplane.http2.extended_connect cimport fields_of_acceptance, upgrade_of
from soth_mitm._dataplane.http2.frame cimport CANCEL, HTTP_1_1_REQUIRED, INTERNAL_ERROR, NO_ERROR
from soth_mitm._dataplane.http2.limits cimport LIMIT_REPLIES
from soth_mitm._dataplane.http2.session_stream cimport SessionStream
from soth_mitm._dataplane.http2.stream cimport DRIVER_STAGES_END, Http2Stream, SessionDriver
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.memory.view cimport View, is_view_of, view_bytes, view_of
from soth_mitm._dataplane.transport.callbacks cimport PAUSE_SETUP
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.transport.lingering_close cimport close_gracefully, close_lingering
from soth_mitm._dataplane.websocket.handshake cimport handshake_fault_text, request_fault
from soth_mitm._dataplane.wire.grpc cimport grpc_failure
from soth_mitm._dataplane.wire.head cimport METHOD_CONNECT, Head
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits
from soth_mitm._dataplane.wire.streams cimport STREAM_GRPC, stream_of


PLAIN_TEXT = (b"content-type", b"text/plain; charset=utf-8")


cdef enum:
    STAGE_IDLE = DRIVER_STAGES_END     # no stream is open: closed in order
    STAGE_DRAIN                        # the client has not answered the PING of a drain


@cython.final
cdef class Http2ServerConnection(HttpConnection):
    """The requests of one client connection that speaks HTTP/2.

    `router(None, authority)` says where a request for `authority` goes. `on_end()` is called once, when the connection is gone and every
    hook has returned.
    """

    def __cinit__(self, Settings settings not None, Endpoint client not None, on_end, *, router not None):
        self.settings = settings
        self.endpoint = client
        self.on_end = on_end
        self.router = router
        self.tunnels = set()
        self.idle_deadline = Deadline(self)
        self.drain_deadline = Deadline(self)

    def start(self):
        """Take over the client's endpoint, with what lies in its read buffer."""
        self.settings.arena.check_thread()
        self.endpoint.callbacks = self
        if self.endpoint.is_gone():
            self.on_closed(self.endpoint, None)
            return
        if self.is_over:  # drained or aborted before it began
            return
        self.driver = ServerDriver.__new__(ServerDriver)
        self.driver.open(self, self.settings, True)
        self.settings.counters.http2_client_connections += 1
        self.driver.begin()
        self.idle_deadline.set(self.settings.client_idle, STAGE_IDLE)
        self.driver.feed()
        if self.endpoint.has_told_eof():
            self.on_eof(self.endpoint, True)
        self.endpoint.resume_reading(PAUSE_SETUP)

    def drain(self):
        """Close when the last stream has ended. Streams that the client opened before it could know of this are served."""
        self.settings.arena.check_thread()
        if self.is_over:
            return
        if self.driver is None:
            self.leave()
            return
        self.driver.session.now = monotonic()
        self.driver.session.drain()
        for tunnel in list(self.tunnels):
            (<StreamTunnel>tunnel).drain()
        self.check_leaving()

    def abort(self):
        """Cut the connection and whatever goes on over it."""
        self.settings.arena.check_thread()
        error = ConnectionAbortedError("aborted")
        self.endpoint.abort(error)
        self.stop(error)

    def has_flow(self, int64_t flow_id):
        """Tell whether that flow is under way here."""
        return self.stream_of_flow(flow_id) is not None

    def cut_flow(self, int64_t flow_id):
        """Cut that flow, if it is under way."""
        cdef Http2ServerStream stream = self.stream_of_flow(flow_id)
        cdef StreamTunnel tunnel
        cdef Exchange exchange
        error = ConnectionAbortedError("closed by the handler")
        if stream is None:
            return
        # references of our own: they end meanwhile
        if stream.tunnel is not None:
            tunnel = stream.tunnel
            tunnel.stop(error)
        else:
            exchange = <Exchange>stream.callbacks
            exchange.cut(error)

    cdef Http2ServerStream stream_of_flow(self, int64_t flow_id):
        cdef SessionStream session_stream
        cdef Http2ServerStream stream
        cdef Exchange exchange
        if self.is_over or self.driver is None:
            return None
        for session_stream in self.driver.session.streams.values():
            stream = session_stream.owner
            if stream is None or stream.callbacks is None:
                continue
            exchange = <Exchange>stream.callbacks if stream.tunnel is None else stream.exchange
            if exchange is not None and exchange.id == flow_id:
                return stream
        return None

    # ---- streams

    cdef int open_exchange(self, SessionStream session_stream, Head head, bint https, bint is_end) except -1:
        cdef Http2ServerStream stream = Http2ServerStream.__new__(Http2ServerStream)
        cdef Exchange exchange
        cdef Head upgrade = None
        self.idle_deadline.clear()
        self.open_streams += 1
        self.unsettled += 1
        self.find_route(head)
        if session_stream.protocol is not None and session_stream.protocol.lower() == b"websocket":
            upgrade = upgrade_of(head)
            if upgrade is not None:
                head = upgrade
        stream.owner = self
        stream.request = head
        stream.attach(self.driver, session_stream, self.settings)
        # the session has compared Content-Length with what comes
        body_of_stream(&stream.body, head, 0)
        if upgrade is not None:
            stream.hold(is_end)
        elif is_end:
            stream.end_at_head()
        exchange = new_exchange(self.settings, self, stream, self.route, head)
        stream.callbacks = exchange
        if https != (self.route.scheme == "https"):
            exchange.refuse(421, b"the scheme that the request names is not that of this connection")
        elif upgrade is not None and request_fault(upgrade):
            # without its upgrade it would be no request of this client's
            self.settings.counters.websocket_bad_handshakes += 1
            exchange.refuse(400, handshake_fault_text(request_fault(upgrade)).encode())
        elif upgrade is not None:
            exchange.keep_upgrade = True
            return exchange.start()
        elif session_stream.protocol is not None and session_stream.protocol.lower() == b"websocket":
            exchange.refuse(400, b"a request for a WebSocket has no content")
        elif session_stream.protocol is not None:
            exchange.explain(501, b"no protocol but WebSocket is served on a stream of HTTP/2")
        elif head.method == METHOD_CONNECT:
            exchange.explain(501, b"CONNECT is not served on a stream of HTTP/2")
        else:
            return exchange.start()
        return exchange.advance()

    cdef int find_route(self, Head head) except -1:
        cdef View named = view_of(NULL, 0)
        if head.host >= 0:
            named = head.span(head.fields[head.host].value, head.fields[head.host].value_len)
        if self.routed is None or not is_view_of(self.routed, named):
            self.routed = view_bytes(named)
            self.route = self.router(None, self.routed)
        return 0

    cdef int on_route(self, object route, bint once) except -1:
        # other streams may have asked about other names meanwhile: the router knows the answer
        self.routed = None
        return 0

    cdef int stream_left(self) except -1:
        self.open_streams -= 1
        if self.open_streams or self.is_over:
            return 0
        if not self.driver.session.is_draining:
            return self.idle_deadline.set(self.settings.client_idle, STAGE_IDLE)
        return self.check_leaving()

    cdef int on_exchange_settled(self, Stream stream) except -1:
        cdef Http2ServerStream own = <Http2ServerStream>stream
        own.is_settled = True
        own.let_go()
        self.unsettled -= 1
        return self.check_end()

    cdef int abort_after(self, object error) except -1:
        # its stream has ended, and the others are no part of it
        return 0

    # ---- what the endpoint says

    cdef int on_data(self, object endpoint) except -1:
        return 0 if self.is_over else self.driver.feed()

    cdef int on_flushed(self, object endpoint) except -1:
        return 0 if self.is_over else self.driver.serve()

    cdef int on_writable(self, object endpoint, bint now) except -1:
        return self.driver.serve() if now and not self.is_over else 0

    cdef int on_eof(self, object endpoint, bint clean) except -1:
        if self.is_over:
            return 0
        # without it no window would ever open again
        self.stop(ConnectionResetError("the client closed the connection"))
        return close_gracefully(self.endpoint, self.settings)

    cdef int on_closed(self, object endpoint, object error) except -1:
        self.stop(error)
        return self.check_end()

    cdef int on_deadline(self, int stage) except -1:
        if self.is_over:
            return 0
        if stage < DRIVER_STAGES_END:
            return self.driver.on_stage(stage)
        self.driver.session.now = monotonic()
        if stage == STAGE_DRAIN:
            self.driver.session.finish_drain()
            return self.check_leaving()
        self.driver.session.goaway(NO_ERROR)
        return self.leave()

    # ---- ends

    cdef int check_leaving(self) except -1:
        if self.is_over or not self.driver.session.is_draining:
            return 0
        if not self.driver.session.has_left:
            # the client may not know yet, and streams of it may be on their way
            if self.drain_deadline.queue is None:
                self.drain_deadline.set(self.settings.http2_drain, STAGE_DRAIN)
            return 0
        # its octets lie in the read buffer while they are read
        return self.leave() if self.open_streams == 0 and not self.driver.is_feeding else 0

    cdef int leave(self) except -1:
        self.stop(None)
        return close_lingering(self.endpoint, self.settings)

    cdef int stop(self, object error) except -1:
        if not self.is_over and self.driver is not None:
            self.settings.counters.http2_client_connections -= 1
        self.is_over = True
        self.idle_deadline.clear()
        self.drain_deadline.clear()
        return 0 if self.driver is None else self.driver.lose_streams(error)

    cdef int check_end(self) except -1:
        if self.endpoint.is_gone() and self.unsettled == 0 and not self.end_reported:
            self.end_reported = True
            if self.driver is not None:
                # it refers to us
                self.driver.detach()
            self.on_end()
        return 0


@cython.final
cdef class ServerDriver(SessionDriver):
    """The session of a client's connection."""

    cdef int on_stream_head(self, SessionStream stream, Head head, bint https, bint is_end) except -1:
        # trailers are no head; interim heads are a server's
        return (<Http2ServerConnection>self.connection).open_exchange(stream, head, https, is_end)

    cdef int count_in(self, Py_ssize_t count) except -1:
        self.settings.counters.bytes_from_clients += count
        return 0

    cdef int on_fed(self) except -1:
        return (<Http2ServerConnection>self.connection).check_leaving()

    cdef int on_session_over(self) except -1:
        (<Http2ServerConnection>self.connection).stop(self.failure)
        if self.session.limit_hit == LIMIT_REPLIES:
            # it does not read, and would not read why
            return self.endpoint.abort(self.failure)
        return close_lingering(self.endpoint, self.settings)


cdef bint is_typed(list fields) except -1:
    """Tell whether there is a Content-Type among the fields."""
    cdef bytes name
    for name, _ in fields:
        if name.lower() == b"content-type":
            return True
    return False


@cython.final
cdef class Http2ServerStream(Http2Stream):
    """A request that comes in and its response that goes out."""

    cdef int let_go(self) except -1:
        cdef Http2ServerConnection owner = self.owner
        if not self.has_let_go and self.is_left and (self.is_closed or (self.has_sent_all and self.waiting() == 0)):
            self.has_let_go = True
            owner.stream_left()
        if self.has_let_go and self.is_settled and owner is not None:
            # its hook has returned, and its slot is free
            self.owner = None
            self.session.release(self.stream)
        return 0

    # ---- WebSocket (RFC 8441)

    cdef int hold(self, bint is_end) except -1:
        # to the exchange it is a request without content
        self.is_held = True
        body_end(&self.body)
        self.has_all = is_end
        return 0

    cdef Py_ssize_t on_data(self, const char* data, Py_ssize_t length) except -1:
        if self.is_held and self.callbacks is not None:
            # it stays with the session, within the stream's window
            return 0
        return Http2Stream.on_data(self, data, length)

    cdef bytes objection_to(self, Head response):
        return b"the upstream did not switch to the WebSocket" if self.takes_for_upgrade(response.status) else b""

    cdef bint takes_for_upgrade(self, int status) noexcept:
        return 200 <= status < 300

    cdef int switch_protocols(self, Stream upstream, Head response) except -1:
        cdef Endpoint endpoint
        if isinstance(upstream, Http1Stream):
            endpoint = upstream.connection().endpoint
            upstream.detach()
            upstream = new_endpoint_stream(self.settings, endpoint, False)
        self.is_held = False
        body_without_framing(&self.body)
        self.exchange = <Exchange>self.callbacks
        self.tunnel = new_stream_tunnel(self.settings, self, upstream, self.tunnel_ended)
        self.exchange.watch(self.tunnel)
        self.owner.tunnels.add(self.tunnel)
        return self.tunnel.start()

    def tunnel_ended(self):
        """The WebSocket of this stream is over. Called by its tunnel."""
        cdef Exchange exchange
        exchange, self.exchange = self.exchange, None
        if self.tunnel is not None and self.owner is not None:
            self.owner.tunnels.discard(self.tunnel)
        self.tunnel = None
        exchange.terminate()

    cdef int release(self, Head request, Head response, HttpConnection client) except -1:
        if (self.is_held or self.tunnel is not None) and self.has_end and not self.is_closed:
            # the client has not ended its direction, and need not
            self.refuse_rest()
            return 0
        return Http2Stream.release(self, request, response, client)

    cdef int reset(self, object error) except -1:
        if self.tunnel is not None and not self.tunnel.over:
            return self.tunnel.stop(error)
        return Http2Stream.reset(self, error)

    cdef int hang_up(self, bint by_reset) except -1:
        self.reset_with(INTERNAL_ERROR if by_reset else CANCEL)
        return self.leave()

    # ---- responses

    cdef int send_interim(self, Head head) except -1:
        if head.status == 101 and not self.is_closed:
            return self.session.own_head(self.stream, 200, fields_of_acceptance(head), -1, False)
        return 0 if self.is_closed else self.session.head(self.stream, head, None, False)

    cdef int send_continue(self) except -1:
        if self.is_closed:
            return 0
        self.session.own_head(self.stream, 100, (), -1, False)
        return 1

    cdef int send_response(self, Head head, Stream source, int64_t length, bint is_last, HeadEdits edits) except -1:
        cdef bint is_end = length == 0
        if length == LENGTH_AS_IS:
            is_end = source.is_complete() and source.content_total() == 0
        if self.is_closed:
            return 0
        if isinstance(source, Http1Stream) and authenticates_connection(self.request, head):
            # it knows users by the connection they speak over, of which a client with many streams has none
            return self.reset_with(HTTP_1_1_REQUIRED)
        self.session.head(self.stream, head, edits, is_end)
        return self.note_head(is_end)

    cdef int begin_answer(self, int status, object headers, bint is_head, bint is_last) except -1:
        cdef list fields = list(headers)
        if self.is_closed:
            return 0
        if not is_typed(fields):
            fields.append(PLAIN_TEXT)
        self.session.own_head(self.stream, status, fields, -1, is_head)
        self.note_head(is_head)
        return self.drain_if(is_last)

    cdef int drain_if(self, bint is_last) except -1:
        if is_last and self.owner is not None:
            # the client's next connection tries again
            self.owner.driver.session.drain()
            self.owner.check_leaving()
        return 0

    cdef int answer(self, int status, bytes body, object headers, bint is_head, bint is_last) except -1:
        # RFC 9110 sections 8.6 and 6.4.1: these have no content, and a length there would describe another response
        cdef bint is_bodiless = status == 204 or status == 304
        cdef bint is_unread = not self.is_complete() or self.is_held
        cdef bint is_end, has_type = is_bodiless
        cdef list fields = list(headers or ()), failure
        if self.is_closed:
            return 0
        if headers is None:
            body = text_line(body)
        has_type = has_type or is_typed(fields)
        if status >= 300 and self.request is not None and stream_of(self.request, None) == STREAM_GRPC:
            failure = grpc_failure(status, body, fields)
            if failure is not None:
                fields, body = failure, b""
                has_type = is_bodiless = True
        if not has_type:
            fields.append(PLAIN_TEXT)
        is_end = is_head or is_bodiless or not body
        self.session.own_head(self.stream, status, fields, -1 if is_bodiless else len(body), is_end)
        self.note_head(is_end)
        if not is_end:
            self.send_content(PyBytes_AS_STRING(body), len(body))
            self.send_end(None)
        self.drain_if(is_last)
        return self.refuse_rest() if is_unread else 0
