"""A client's connection that speaks HTTP/1: heads one after another, keep-alive, interim responses,
101, and its end (RFC 9112).

Requests are served one at a time; what a client sends meanwhile waits in the read buffer.
"""

cimport cython
from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.exchange cimport Exchange, new_exchange
from soth_mitm._dataplane.exchange.relay cimport Tunnel
from soth_mitm._dataplane.exchange.route cimport Route
from soth_mitm._dataplane.exchange.stream_tunnel cimport (
    StreamTunnel, new_endpoint_stream, new_stream_tunnel,
)
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport (
    LENGTH_AS_IS, HttpConnection, Stream, StreamCallbacks,
)
from soth_mitm._dataplane.http1.connection_state cimport (
    SERVER_CLOSE, SERVER_CLOSED, SERVER_DONE, SERVER_HEAD, SERVER_OPEN, SERVER_SWITCH, ServerInput,
    ServerState, next_server_state,
)
from soth_mitm._dataplane.http1.encoder cimport (
    own_head_bytes, own_response_bytes, response_head_bytes, text_line,
)
from soth_mitm._dataplane.http1.framing cimport (
    BODY_CHUNKED, BODY_DONE, body_error_text, body_of_request,
)
from soth_mitm._dataplane.http1.head_parser cimport (
    HEAD_MORE, HEAD_TOO_LARGE, head_error_text, parse_request_head, too_large_text,
)
from soth_mitm._dataplane.http1.stream cimport OUT_CHUNKED, OUT_PLAIN, OUT_UNTIL_CLOSE, Http1Stream
from soth_mitm._dataplane.http.upgrade cimport may_switch
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.memory.view cimport View, is_view_of, view_bytes, view_of
from soth_mitm._dataplane.transport.callbacks cimport (
    PAUSE_BUDGET, PAUSE_BUFFER_FULL, PAUSE_DECISION, PAUSE_HANDLER, PAUSE_PEER_SLOW, PAUSE_SETUP,
    PAUSE_TURN,
)
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.transport.lingering_close cimport (
    close_gracefully, close_lingering, close_reset, close_truncated,
)
from soth_mitm._dataplane.upstream.pool cimport PooledConnection
from soth_mitm._dataplane.websocket.handshake cimport asks_for_websocket, request_fault
from soth_mitm._dataplane.wire.head cimport (
    HTTP_1_0, METHOD_CONNECT, METHOD_HEAD, TARGET_ABSOLUTE, Head,
)
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


cdef enum:
    MOST_REQUESTS = 16         # of one client that are begun in one turn of the loop


cdef enum ServerStage:
    STAGE_IDLE = 1         # no next request: closed quietly
    STAGE_HEAD             # a head that does not end: 408
    STAGE_READER           # the client does not read: cut
    STAGE_HALF_CLOSED      # the client has ended its direction and nothing came for it: 504, or cut


@cython.final
cdef class Http1ServerConnection(HttpConnection):
    """The requests of one client connection.

    `router(scheme, authority)` says where a request goes. It is asked when what requests name
    changes. `scheme` is None unless the request line has a URL. `authority` is that of the URL, or
    else Host, or empty. `on_end()` is called once, when the connection is gone and every hook has
    returned.
    """

    def __cinit__(self, Settings settings not None, Endpoint client not None, on_end, *,
                  router not None):
        self.settings = settings
        self.endpoint = client
        self.on_end = on_end
        self.router = router
        self.stream = Http1ServerStream.__new__(Http1ServerStream)
        self.stream.owner = self
        self.stream.endpoint = client
        self.stream.settings = settings
        self.client_deadline = Deadline(self)
        self.reader_deadline = Deadline(self)

    cdef int move(self, ServerInput event) except -1:
        cdef int state = next_server_state(self.state, event)
        if state < 0:
            raise AssertionError(
                f"a client's connection in state {self.state} has no input {event}")
        self.state = <ServerState>state
        return 0

    def start(self):
        """Take over the client's endpoint, with what lies in its read buffer."""
        self.settings.arena.check_thread()
        self.endpoint.callbacks = self
        if self.endpoint.is_gone():
            self.on_closed(self.endpoint, None)
            return
        if self.state == SERVER_CLOSED:  # drained or aborted before it began
            return
        self.keep_alive = True
        self.await_request()
        self.advance()
        if self.endpoint.has_told_eof() and self.state != SERVER_CLOSED:
            self.on_eof(self.endpoint, True)
        self.endpoint.resume_reading(PAUSE_SETUP)

    def drain(self):
        """Close when the current exchange has ended, or now when there is none. What was switched
        to ends when it is quiet.
        """
        # references of our own: either may end meanwhile, and is let go of
        cdef Tunnel tunnel = self.tunnel
        cdef StreamTunnel websocket = self.websocket
        self.settings.arena.check_thread()
        self.keep_alive = False
        if tunnel is not None:
            tunnel.drain()
        elif websocket is not None:
            websocket.drain()
        elif self.exchange is None and self.state != SERVER_CLOSED:
            self.leave()

    def abort(self):
        """Cut the connection and whatever goes on over it."""
        # references of our own: either may end meanwhile, and is let go of
        cdef Tunnel tunnel = self.tunnel
        cdef StreamTunnel websocket = self.websocket
        self.settings.arena.check_thread()
        if tunnel is not None:
            tunnel.abort()
        if websocket is not None:
            websocket.stop(ConnectionAbortedError("aborted"))
        self.cut(ConnectionAbortedError("aborted"))

    def has_flow(self, int64_t flow_id):
        """Tell whether that flow is under way here."""
        return self.exchange is not None and self.exchange.id == flow_id

    def cut_flow(self, int64_t flow_id):
        """Cut that flow, if it is under way."""
        # references of our own: they end meanwhile
        cdef Exchange exchange = self.exchange
        cdef Tunnel tunnel = self.tunnel
        cdef StreamTunnel websocket = self.websocket
        error = ConnectionAbortedError("closed by the handler")
        if not self.has_flow(flow_id):
            return
        if tunnel is not None:
            tunnel.abort()
        elif websocket is not None:
            websocket.stop(error)
        else:
            exchange.cut(error)

    # ---- heads, one after another

    cdef int advance(self) except -1:
        if self.is_running or self.state == SERVER_CLOSED:
            self.runs_again = True
            return 0
        self.is_running = True
        self.runs_again = True
        self.begun = 0
        try:
            while self.runs_again and self.state == SERVER_HEAD:
                self.runs_again = False
                self.read_head()
        finally:
            self.is_running = False
        if not self.endpoint.is_gone():
            self.endpoint.flush()
        return 0

    cdef int take_later(self) except -1:
        if not self.is_turn_due:
            self.is_turn_due = True
            self.settings.hooks.loop.call_soon(self.take_turn)
        return 0

    def take_turn(self):
        """Go on with the requests for which one turn of the loop was too short. Called by the loop.
        """
        self.is_turn_due = False
        if self.state == SERVER_HEAD:
            self.advance()

    cdef int read_head(self) except -1:
        cdef Py_ssize_t size = self.endpoint.read_buffer.size(), used
        cdef Head head
        if size == 0:
            return self.leave() if self.endpoint.has_told_eof() else 0
        if self.endpoint.is_write_paused():
            # no more requests are parsed while the client does not read its responses
            return self.endpoint.pause_reading(PAUSE_PEER_SLOW)
        if self.unsettled >= self.settings.queue_limit:
            # nor while so many exchanges wait for the handler
            return self.endpoint.pause_reading(PAUSE_HANDLER)
        if self.begun == MOST_REQUESTS:
            return self.take_later()
        head = Head()
        used = parse_request_head(
            head, self.endpoint.read_buffer.data(), size, self.settings.head_limit,
            self.settings.most_fields, &self.scanned)
        if used == HEAD_MORE:
            if self.endpoint.has_told_eof():
                return self.leave()
            self.endpoint.read_buffer.shrink()
            if self.client_deadline.stage != STAGE_HEAD or self.client_deadline.queue is None:
                self.client_deadline.set(self.settings.client_head, STAGE_HEAD)
            return 0
        self.client_deadline.clear()
        self.scanned = 0
        if used > 0:
            self.settings.counters.bytes_from_clients += used
            self.stream.consume(used)
            return self.open_exchange(head)
        if used == HEAD_TOO_LARGE:
            return self.refuse(431, b"the request head " + too_large_text(
                head, self.settings.head_limit, self.settings.most_fields))
        return self.refuse(400, head_error_text(head.error).encode())

    cdef int open_exchange(self, Head head) except -1:
        cdef Http1ServerStream stream = self.stream
        cdef Exchange exchange
        cdef bint is_refused = body_of_request(
            &stream.body, head, self.settings.head_limit, self.settings.most_fields) < 0
        self.begun += 1
        self.keep_alive = head.keeps_alive() and not self.settings.draining
        self.find_route(head)
        stream.is_1_0 = head.version == HTTP_1_0
        stream.is_head_request = head.method == METHOD_HEAD
        stream.out_framing = OUT_PLAIN
        stream.sink = None
        exchange = new_exchange(self.settings, self, stream, self.route, head)
        self.move(SERVER_OPEN)
        self.unsettled += 1
        self.exchange = exchange
        stream.callbacks = exchange
        if is_refused:
            exchange.refuse(400, body_error_text(stream.body.error).encode())
        elif head.method == METHOD_CONNECT:
            # a tunnel takes a new connection
            self.keep_alive = False
            exchange.explain(
                501, b"CONNECT must be the first request of its connection to the proxy")
        else:
            exchange.keep_upgrade = head.connection_upgrade and may_switch(head)
            if exchange.keep_upgrade and asks_for_websocket(head) and request_fault(head):
                # it goes on without its upgrade, and the upstream says what it lacks
                self.settings.counters.websocket_bad_handshakes += 1
                exchange.keep_upgrade = False
            return exchange.start()
        return exchange.advance()

    cdef int find_route(self, Head head) except -1:
        cdef View named = view_of(NULL, 0)
        scheme = None
        if head.form == TARGET_ABSOLUTE:
            named = head.span(head.authority, head.authority_len)
            scheme = "https" if head.https else "http"
        elif head.host >= 0:
            named = head.span(head.fields[head.host].value, head.fields[head.host].value_len)
        if (self.routed is None or scheme != self.routed_scheme
                or not is_view_of(self.routed, named)):
            self.routed = view_bytes(named)
            self.routed_scheme = scheme
            self.route = self.router(scheme, self.routed)
        return 0

    cdef int on_route(self, object route, bint once) except -1:
        self.route = <Route>route
        if once:
            self.routed = None
        return 0

    cdef int refuse(self, int status, bytes text) except -1:
        self.settings.counters.requests_refused += 1
        if self.on_refused is not None:
            self.on_refused(status, text.decode("utf-8", "replace"))
        # what is left of it would be taken for the next request
        self.stream.send_head_bytes(own_response_bytes(status, text_line(text), None, True, False))
        close_lingering(self.endpoint, self.settings)
        return self.stop()

    cdef int await_request(self) except -1:
        self.runs_again = True
        if self.endpoint.read_buffer.size() == 0:
            self.client_deadline.set(self.settings.client_idle, STAGE_IDLE)
        self.endpoint.resume_reading(
            PAUSE_PEER_SLOW | PAUSE_HANDLER | PAUSE_BUDGET | PAUSE_TURN | PAUSE_BUFFER_FULL
            | PAUSE_DECISION)
        return 0

    cdef int exchange_done(self) except -1:
        if self.state == SERVER_CLOSED:
            return 0
        self.exchange = None
        self.stream.callbacks = None
        self.stream.sink = None
        if self.keep_alive:
            self.move(SERVER_DONE)
            self.await_request()
            return self.advance() if not self.is_running else 0
        if self.endpoint.read_buffer.size():
            # closing on unread requests would reset the connection, and the client might lose the
            # response
            close_lingering(self.endpoint, self.settings)
            return self.stop()
        return self.leave()

    cdef int on_exchange_settled(self, Stream stream) except -1:
        self.unsettled -= 1
        if self.state == SERVER_HEAD and self.endpoint.paused & PAUSE_HANDLER:
            self.endpoint.resume_reading(PAUSE_HANDLER)
            return self.advance()
        return self.check_end()

    # ---- what the endpoint says

    cdef int on_data(self, object endpoint) except -1:
        # a reference of our own: it may end meanwhile
        cdef Exchange exchange = self.exchange
        return self.advance() if exchange is None else exchange.on_content(self.stream)

    cdef int on_eof(self, object endpoint, bint clean) except -1:
        cdef Exchange exchange = self.exchange
        if self.state == SERVER_CLOSED:
            return 0
        if self.endpoint.has_fin():
            self.serve_half_closed()
        if self.state == SERVER_HEAD:
            # a head that came before its end is answered
            return self.advance()
        if not clean or (
                self.stream.body.state != BODY_DONE and self.endpoint.read_buffer.size() == 0):
            return self.cut(ConnectionResetError("the client closed the connection"))
        # what came before its end is taken first; the exchange sees whether that is the whole
        # request
        return 0 if self.stream.body.state == BODY_DONE else exchange.on_content(self.stream)

    cdef int on_fin(self, object endpoint) except -1:
        return self.serve_half_closed() if self.state != SERVER_CLOSED else 0

    cdef int on_closed(self, object endpoint, object error) except -1:
        self.cut(error)
        return self.check_end()

    cdef int on_writable(self, object endpoint, bint now) except -1:
        cdef Exchange exchange = self.exchange
        if self.state == SERVER_CLOSED:
            return 0
        if now:
            self.reader_deadline.clear()
        else:
            self.await_reader()
        if exchange is not None:
            return exchange.on_stream_writable(self.stream, now)
        if now:
            self.endpoint.resume_reading(PAUSE_PEER_SLOW)
            return self.advance()
        return 0

    # ---- a client that only listens, and one that does not

    cdef int serve_half_closed(self) except -1:
        # One that closed both directions looks the same. It is found out by what it is sent, so
        # time runs only while it is sent nothing.
        if self.half_closed is None:
            self.half_closed = Deadline(self)
        self.half_closed_at = self.endpoint.bytes_out
        return self.half_closed.set(self.settings.half_closed, STAGE_HALF_CLOSED)

    cdef int64_t taken_by_reader(self) except -1:
        return self.endpoint.bytes_out - <int64_t>self.endpoint.transport.get_write_buffer_size()

    cdef int await_reader(self) except -1:
        self.reader_took = self.taken_by_reader()
        return self.reader_deadline.set(self.settings.body_idle, STAGE_READER)

    cdef int on_deadline(self, int stage) except -1:
        cdef Exchange exchange = self.exchange
        if self.state == SERVER_CLOSED:
            return 0
        if stage == STAGE_IDLE:
            return self.leave()
        if stage == STAGE_HEAD:
            self.refuse(408, b"the request head did not arrive in time (timeouts.client_head_ms)")
            return 0
        if stage == STAGE_READER:
            if self.taken_by_reader() > self.reader_took:
                # slowly, but it reads
                return self.await_reader()
            return self.cut(TimeoutError("the client stopped reading (timeouts.body_idle_ms)"))
        if self.endpoint.is_write_paused() or self.endpoint.bytes_out != self.half_closed_at:
            return self.serve_half_closed()
        self.keep_alive = False
        return self.leave() if exchange is None else exchange.on_half_closed()

    # ---- 101

    cdef int begin_tunnel(self, HttpConnection upstream) except -1:
        self.move(SERVER_SWITCH)
        self.client_deadline.clear()
        self.reader_deadline.clear()
        if self.half_closed is not None:
            self.half_closed.clear()
        if self.exchange.has_taps():
            self.websocket = new_stream_tunnel(
                self.settings, new_endpoint_stream(self.settings, self.endpoint, True),
                new_endpoint_stream(self.settings, upstream.endpoint, False), self.tunnel_ended)
            self.exchange.watch(self.websocket)
            return self.websocket.start()
        self.tunnel = Tunnel(self.settings, self.endpoint, upstream.endpoint, self.tunnel_ended)
        self.tunnel.recording = self.exchange.recording
        self.tunnel.start()
        return 0

    def tunnel_ended(self):
        """The connections that had switched protocols are closing. Called by the tunnel."""
        cdef Exchange exchange = self.exchange
        self.stop()
        if exchange is not None:
            exchange.terminate()
        if self.endpoint.is_gone():
            self.check_end()
        else:
            self.endpoint.callbacks = self

    # ---- an upstream connection that only this client uses

    cdef int reserve(self, HttpConnection upstream) except -1:
        if self.reserved is not None:
            (<PooledConnection>self.reserved).retire()
        self.reserved = upstream
        self.settings.counters.pool_pins += 1
        return 1

    cdef bint has_reserved(self, HttpConnection upstream) noexcept:
        return self.reserved is not None and self.reserved is upstream

    cdef bint has_reserved_of(self, object pool) noexcept:
        return self.reserved is not None and (<PooledConnection>self.reserved).reserved_pool is pool

    cdef Stream open_reserved(self, StreamCallbacks exchange):
        return (<PooledConnection>self.reserved).open_reserved_stream(exchange)

    cdef int on_reserved_closed(self, HttpConnection upstream) except -1:
        if self.state == SERVER_CLOSED or self.reserved is not upstream:
            return 0
        # the server knew the client by it: the client is not to go on as if it still did
        self.keep_alive = False
        return self.leave() if self.exchange is None else 0

    # ---- ends

    cdef int leave(self) except -1:
        close_gracefully(self.endpoint, self.settings)
        return self.stop()

    cdef int cut(self, object error) except -1:
        cdef Exchange exchange = self.exchange
        if self.state == SERVER_CLOSED:
            return 0
        if exchange is not None:
            exchange.lose_client(error)
        if self.state != SERVER_CLOSED:
            self.endpoint.abort(error)
            return self.stop()
        return 0

    cdef int abort_after(self, object error) except -1:
        cdef Exchange exchange = self.exchange
        if self.state == SERVER_CLOSED:
            return 0
        if exchange is not None and not exchange.is_over():
            return exchange.truncate(error)
        close_truncated(self.endpoint, self.settings, True, error)
        return self.stop()

    cdef int stop(self) except -1:
        cdef HttpConnection reserved = self.reserved
        if self.state == SERVER_CLOSED:
            return 0
        self.move(SERVER_CLOSE)
        self.exchange = None
        self.stream.callbacks = None
        self.client_deadline.clear()
        self.reader_deadline.clear()
        if self.half_closed is not None:
            self.half_closed.clear()
        self.reserved = None
        # it leads to us
        self.on_refused = None
        return 0 if reserved is None else (<PooledConnection>reserved).retire()

    cdef int check_end(self) except -1:
        if (self.state == SERVER_CLOSED and self.endpoint.is_gone() and self.unsettled == 0
                and not self.end_reported):
            self.end_reported = True
            # which refer to us
            self.stream.owner = None
            self.tunnel = None
            self.websocket = None
            self.on_end()
        return 0


@cython.final
cdef class Http1ServerStream(Http1Stream):
    """A request that comes in and its response that goes out."""

    cdef int count_in(self, Py_ssize_t count) except -1:
        self.settings.counters.bytes_from_clients += count
        return 0

    cdef int count_out(self, Py_ssize_t count) except -1:
        self.settings.counters.bytes_to_clients += count
        return 0

    cdef int flush(self) except -1:
        # once for all requests of a turn
        return 0 if self.owner.is_running else self.endpoint.flush()

    cdef bint has_no_more(self) noexcept:
        # the client has ended its direction, and no other request lies here
        return self.endpoint.has_told_eof() and self.endpoint.read_buffer.size() == 0

    cdef int send_interim(self, Head head) except -1:
        if head.status == 101:
            return self.endpoint.send_bytes(response_head_bytes(head, False, False, True, False))
        # which a client that speaks HTTP/1.0 does not know
        return 0 if self.is_1_0 else self.send_head_bytes(
            response_head_bytes(head, False, False, False, False))

    cdef int send_continue(self) except -1:
        if self.is_1_0:
            return 0
        self.endpoint.send_bytes(CONTINUE)
        return 1

    cdef int send_response(self, Head head, Stream source, int64_t length, bint is_last,
                           HeadEdits edits) except -1:
        cdef Http1ServerConnection owner = self.owner
        cdef bint takes_off_chunks = False
        if edits is not None:
            self.out_framing = OUT_UNTIL_CLOSE if self.is_1_0 else OUT_CHUNKED
            if not self.is_1_0:
                edits.frame_with_chunks()
        elif length >= 0:
            self.out_framing = OUT_PLAIN
        elif length == LENGTH_AS_IS and isinstance(source, Http1Stream):
            takes_off_chunks = (<Http1Stream>source).body.kind == BODY_CHUNKED and self.is_1_0
            self.out_framing = (
                OUT_UNTIL_CLOSE if takes_off_chunks or source.ends_by_close() else OUT_PLAIN)
        elif (head.content_length >= 0 or self.is_head_request
                or head.status == 204 or head.status == 304):
            self.out_framing = OUT_PLAIN
        elif length == LENGTH_AS_IS and source.is_complete():
            self.out_framing = OUT_PLAIN
            edits = HeadEdits()
            edits.frame_with_length(source.content_total())
        else:
            self.out_framing = OUT_UNTIL_CLOSE if self.is_1_0 else OUT_CHUNKED
            edits = HeadEdits()
            if self.is_1_0:
                edits.frame_without_content()
            else:
                edits.frame_with_chunks()
        if (is_last or self.out_framing == OUT_UNTIL_CLOSE
                or self.settings.draining or self.has_no_more()):
            # the last: what is left of the request will have nowhere to go
            owner.keep_alive = False
        return self.send_head_bytes(response_head_bytes(
            head, not owner.keep_alive, owner.keep_alive and self.is_1_0, False, self.is_1_0,
            edits))

    cdef int answer(self, int status, bytes body, object headers, bint is_head,
                    bint is_last) except -1:
        cdef Http1ServerConnection owner = self.owner
        # an unread rest of the request would be taken for the next one
        cdef bint is_unread = self.body.state != BODY_DONE
        if is_unread or self.settings.draining or self.is_1_0 or is_last or self.has_no_more():
            owner.keep_alive = False
        if headers is None:
            body = text_line(body)
        self.send_head_bytes(
            own_response_bytes(status, body, headers, not owner.keep_alive, is_head))
        if not is_unread:
            self.flush()
            return 0
        return self.refuse_rest()

    cdef int begin_answer(self, int status, object headers, bint is_head, bint is_last) except -1:
        cdef Http1ServerConnection owner = self.owner
        if (self.body.state != BODY_DONE or self.settings.draining or self.is_1_0 or is_last
                or self.has_no_more()):
            owner.keep_alive = False
        self.out_framing = OUT_PLAIN if is_head else OUT_UNTIL_CLOSE if self.is_1_0 else OUT_CHUNKED
        return self.send_head_bytes(own_head_bytes(
            status, headers, not owner.keep_alive, self.out_framing == OUT_CHUNKED))

    cdef int release(self, Head request, Head response, HttpConnection client) except -1:
        cdef Http1ServerConnection owner = self.owner
        # None: the last hook of the exchange has returned, and the client is gone
        return 0 if owner is None else owner.exchange_done()

    cdef int refuse_rest(self) except -1:
        close_lingering(self.endpoint, self.settings)
        self.owner.stop()
        return 1

    cdef int truncate(self, bint has_response, object error) except -1:
        # does the framing show that the response is not all?
        close_truncated(
            self.endpoint, self.settings, not has_response or self.out_framing != OUT_UNTIL_CLOSE,
            error)
        return self.owner.stop()

    cdef int reset(self, object error) except -1:
        self.endpoint.abort(error)
        return self.owner.stop()

    cdef int hang_up(self, bint by_reset) except -1:
        if by_reset:
            close_reset(self.endpoint, self.settings)
        else:
            close_lingering(self.endpoint, self.settings)
        return self.owner.stop()

    cdef int switch_protocols(self, Stream upstream, Head response) except -1:
        cdef HttpConnection connection = upstream.connection()
        upstream.detach()
        return self.owner.begin_tunnel(connection)

    cdef HttpConnection connection(self):
        return self.owner
