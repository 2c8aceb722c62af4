"""Tunnels between streams: the relay of a WebSocket whose messages are shown, and of one that a client opened on a stream of HTTP/2
(RFC 8441 section 5).

END_STREAM and the end of a connection's direction are one thing, and so are RST_STREAM with CANCEL and a connection that is cut. The
end of a client's stream reaches a whole connection once its upstream has said nothing for `tunnel_quiet`.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING

from soth_mitm._dataplane.exchange.callbacks cimport ExchangeCallbacks, TunnelCallbacks
from soth_mitm._dataplane.exchange.message_tap cimport Injection, MessageTap
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport NO_ROOM_LIMIT, HttpConnection, Piece, Stream
from soth_mitm._dataplane.memory.deadline cimport Deadline, DeadlineQueue
from soth_mitm._dataplane.memory.view cimport view_of
from soth_mitm._dataplane.transport.callbacks cimport PAUSE_BUFFER_FULL, PAUSE_PEER_SLOW, PAUSE_TURN
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.transport.lingering_close cimport close_gracefully
from soth_mitm._dataplane.websocket.message_writer cimport MessageWriter
from soth_mitm._dataplane.websocket.violations cimport close_code_of, close_reason_of
from soth_mitm._dataplane.wire.head cimport Head

# of a Close of ours
cdef bytes DRAINING = b"the proxy is shutting down"
cdef bytes SILENT = b"no message for too long"
cdef bytes FAILED = b"a hook of the proxy failed"


@cython.final
cdef class EndpointStream(Stream):
    """One whole connection as a stream without framing."""

    cdef int begin(self) except -1:
        cdef EndpointOwner owner = EndpointOwner.__new__(EndpointOwner)
        owner.endpoint = self.endpoint
        owner.stream = self
        self.endpoint.callbacks = owner
        if self.endpoint.is_gone():
            return owner.on_closed(self.endpoint, self.endpoint.close_error)
        self.has_ended = self.endpoint.has_told_eof()
        # another reason than this one ended with the response
        self.endpoint.resume_reading(~PAUSE_PEER_SLOW)
        return 0 if self.callbacks is None else self.callbacks.on_content(self)

    cdef int next_piece(self, Piece* piece, Py_ssize_t most) except -2:
        cdef Py_ssize_t count = min(self.endpoint.read_buffer.size() - self.offset, most)
        if count <= 0:
            return 0
        piece.content = view_of(self.endpoint.read_buffer.data() + self.offset, count)
        piece.trailers = view_of(NULL, 0)
        self.offset += count
        return 1

    cdef Py_ssize_t take_content(self) except -1:
        cdef Py_ssize_t count = self.offset
        self.offset = 0
        if count == 0:
            return 0
        if self.is_client:
            self.settings.counters.bytes_from_clients += count
        else:
            self.settings.counters.bytes_from_upstreams += count
        self.endpoint.read_buffer.consume(count)
        if self.endpoint.paused & PAUSE_BUFFER_FULL:
            self.endpoint.resume_reading(PAUSE_BUFFER_FULL)
        return count

    cdef bint is_complete(self) noexcept:
        return self.has_ended and self.endpoint.read_buffer.size() == self.offset

    cdef bint has_content(self) noexcept:
        return self.endpoint.read_buffer.size() > self.offset

    cdef int pause(self, int reason) except -1:
        return self.endpoint.pause_reading(reason)

    cdef bint resume(self, int reason) except -1:
        # the tunnel may let go of us in the call
        cdef Endpoint endpoint = self.endpoint
        endpoint.resume_reading(reason)
        return endpoint.paused == 0

    cdef int paused(self) noexcept:
        return self.endpoint.paused

    cdef int send_content(self, const char* data, Py_ssize_t length) except -1:
        if self.is_client:
            self.settings.counters.bytes_to_clients += length
        else:
            self.settings.counters.bytes_to_upstreams += length
        return self.endpoint.send(data, length)

    cdef int send_end(self, bytes trailers) except -1:
        return 0 if self.endpoint.is_closing() else self.endpoint.end_writing()

    cdef int flush(self) except -1:
        return self.endpoint.flush()

    cdef bint is_write_paused(self) noexcept:
        return self.endpoint.is_write_paused()

    cdef int release(self, Head request, Head response, HttpConnection client) except -1:
        self.callbacks = None
        return close_gracefully(self.endpoint, self.settings)

    cdef int reset(self, object error) except -1:
        self.callbacks = None
        # without TLS, only a RST tells the peer that this is no end
        return self.endpoint.abort(error or ConnectionResetError("the other side of the WebSocket was reset"))


@cython.final
cdef class EndpointOwner(HttpConnection):
    """What hears of the endpoint of an `EndpointStream`."""

    cdef int on_data(self, object endpoint) except -1:
        cdef EndpointStream stream = self.stream
        return 0 if stream is None or stream.callbacks is None else stream.callbacks.on_content(stream)

    cdef int on_writable(self, object endpoint, bint now) except -1:
        cdef EndpointStream stream = self.stream
        return 0 if stream is None or stream.callbacks is None else stream.callbacks.on_stream_writable(stream, now)

    cdef int on_eof(self, object endpoint, bint clean) except -1:
        # clean or not: protocols that are switched to say themselves when they end
        self.stream.has_ended = True
        return self.on_data(endpoint)

    cdef int on_closed(self, object endpoint, object error) except -1:
        cdef EndpointStream stream = self.stream
        # it refers to us
        self.stream = None
        if stream is None or stream.callbacks is None:
            return 0
        return stream.callbacks.on_reset(stream, error or ConnectionResetError("the connection was closed"))


@cython.final
cdef class StreamTunnel(TunnelCallbacks):
    """Relays between two streams from now on, beginning with what lies in them.

    It ends when both sides have ended, when one is lost or reset, or when nothing has moved for `tunnel_idle` (`websocket_idle` where
    messages are read); in a drain, for the much shorter `tunnel_quiet`. Behind the Closes of both sides it ends after `websocket_close`.
    """

    cdef int start(self) except -1:
        self.settings.counters.tunnels += 1
        self.client.callbacks = self
        self.upstream.callbacks = self
        self.wait()
        for stream in (self.upstream, self.client):
            if self.over:
                return 0
            if isinstance(stream, EndpointStream):
                (<EndpointStream>stream).begin()
            else:
                self.carry(<Stream>stream)
        return 0 if self.over or not self.pressure else self.on_pressure(self.pressure, True)

    cdef int drain(self) except -1:
        return 0 if self.over else self.wait()

    cdef int wait(self) except -1:
        if self.is_failing or self.is_closing:
            return 0
        if self.settings.draining or self.end_waits:
            return self.deadline.set(self.settings.tunnel_quiet, 0)
        return self.deadline.set(self.settings.tunnel_idle if self.watcher is None else self.settings.websocket_idle, 0)

    cdef Stream across(self, Stream stream):
        return self.upstream if stream is self.client else self.client

    cdef int carry(self, Stream source) except -1:
        cdef Stream sink = self.across(source)
        cdef Piece piece
        cdef Py_ssize_t most
        cdef bint is_whole = isinstance(source, EndpointStream)
        cdef MessageTap tap = self.tap_of(source)
        if self.is_failing:
            return self.drop(source)
        while not self.over:
            if tap is not None and not is_whole and (tap.wants_pause() or self.pressure):
                break
            # an end needs no room, and what lies here of a whole connection would be lost with it
            most = NO_ROOM_LIMIT
            if not is_whole:
                most = 0 if sink.is_write_paused() else max(sink.room(), <Py_ssize_t>0)
            if source.next_piece(&piece, most) <= 0:
                if most == 0 and source.has_content():
                    source.pause(PAUSE_PEER_SLOW)
                    sink.await_room()
                break
            if piece.content.len:
                if self.recording is not None:
                    self.recording.count(source is self.upstream, piece.content.len)
                if tap is None:
                    sink.send_content(piece.content.ptr, piece.content.len)
                else:
                    tap.pass_on(piece.content, sink)
        if self.over:
            return 0
        source.take_content()
        if tap is not None and not self.over:
            self.show(source, sink, tap)
        if self.over or self.is_failing:
            return 0
        if tap is not None and (tap.is_behind or tap.is_waiting):
            # what is still to be shown or decided goes before the end
            return self.let_drain(source, sink, is_whole)
        if source.is_complete() and not self.has_told_end(source):
            if source is self.client:
                self.client_ended = True
            else:
                self.upstream_ended = True
            if tap is not None:
                tap.finish(sink)
            if isinstance(sink, EndpointStream) and not is_whole and not self.upstream_ended and not self.is_closing:
                # browsers end their stream with their Close; many servers of HTTP/1 take FIN for a loss, and drop their answer to it
                self.end_waits = True
                self.wait()
            else:
                # trailers mean nothing to a WebSocket
                sink.send_end(None)
            if (self.client_ended and self.upstream_ended) or source.is_peer_gone():
                return self.stop(None)
        return 0 if self.over else self.let_drain(source, sink, is_whole)

    cdef int let_drain(self, Stream source, Stream sink, bint is_whole) except -1:
        if is_whole and sink.is_write_paused():
            source.pause(PAUSE_PEER_SLOW)
            sink.await_room()
        return 0 if self.over else sink.flush()

    cdef bint has_told_end(self, Stream source) noexcept:
        return self.client_ended if source is self.client else self.upstream_ended

    cdef int on_content(self, Stream stream) except -1:
        if self.over:
            return 0
        self.wait()
        return self.carry(stream)

    cdef int on_reset(self, Stream stream, object error) except -1:
        # what came before an end is with the other side's stream, and arrives
        return self.stop(None if self.is_failing or self.has_told_end(stream) or stream.is_complete() else error)

    cdef int on_stream_writable(self, Stream stream, bint now) except -1:
        cdef Stream source
        if self.over or self.is_failing:
            return 0
        source = self.across(stream)
        if not now:
            return source.pause(PAUSE_PEER_SLOW)
        self.wait()
        if self.watcher is not None:
            self.tap_of(source).put_in(stream)
        source.resume(PAUSE_PEER_SLOW)
        return 0 if self.over else self.carry(source)

    cdef int on_deadline(self, int stage) except -1:
        if self.is_failing or self.is_closing:
            return self.stop(None)
        if self.end_waits and self.client.is_write_paused():
            # the upstream is silent because it is not read
            return self.wait()
        if self.end_waits:
            self.end_waits = False
            self.upstream.send_end(None)
            return 0 if self.over else self.wait()
        if self.settings.draining and (self.client.is_write_paused() or self.upstream.is_write_paused()):
            # a slow reader has yet to take what came, and the drain has a deadline of its own
            return self.wait()
        if self.watcher is None:
            return self.stop(None)
        return self.end_with(1001, DRAINING if self.settings.draining else SILENT)

    cdef int stop(self, object error) except -1:
        if self.over:
            return 0
        self.over = True
        self.deadline.clear()
        if self.watcher is not None:
            if error is None and not self.is_failing:
                self.read_last()
                if self.from_client.violation or self.from_upstream.violation:
                    code, reason = self.fault()
                    self.say_closes(code, reason)
            self.settings.counters.websocket_closes[self.closed_by] += 1
            self.watcher = None
            self.from_client.stop()
            self.from_upstream.stop()
        on_end, self.on_end = self.on_end, None
        if isinstance(self.client, EndpointStream):
            # which gives its connection back to what is then told when it is gone
            on_end()
            on_end = None
        if error is None:
            self.upstream.release(None, None, None)
            self.client.release(None, None, None)
        else:
            # whatever the code of the one was, the other is told CANCEL (RFC 8441 section 5)
            self.upstream.reset(None)
            self.client.reset(None)
        if on_end is not None:
            on_end()
        return 0

    # ---- messages that are shown

    cdef int watch(self, ExchangeCallbacks watcher, MessageTap from_client, MessageTap from_upstream, int pressure) except -1:
        cdef MessageTap tap
        self.watcher = watcher
        self.from_client = from_client
        self.from_upstream = from_upstream
        self.pressure = pressure
        for tap in (from_client, from_upstream):
            tap.watcher = watcher
            tap.tunnel = self
        return 0

    cdef MessageTap tap_of(self, Stream source):
        return self.from_client if source is self.client else self.from_upstream

    cdef int show(self, Stream source, Stream sink, MessageTap tap) except -1:
        # a reference of our own: it may end meanwhile
        cdef ExchangeCallbacks watcher = self.watcher
        if tap.found or tap.is_holding():
            # traffic first, then the handler
            sink.flush()
            watcher.on_messages(tap)
            if self.over or self.is_failing:
                return 0
        if tap.violation:
            return self.fail(tap.violation, source is self.client)
        if tap.end_error is not None:
            return watcher.on_hook_abort(tap.end_error)
        if tap.end_code:
            return self.close(tap.end_code, tap.end_reason)
        if tap.has_closed:
            self.note_close(tap, source is self.client)
        if not tap.wants_pause():
            return 0
        source.pause(PAUSE_TURN)
        return self.take_later() if tap.is_behind else 0

    cdef int note_close(self, MessageTap tap, bint by_client) except -1:
        if self.closed_by == CLOSED_BY_NOBODY:
            self.closed_by = CLOSED_BY_CLIENT if by_client else CLOSED_BY_UPSTREAM
            self.close_code = tap.close_code
        if self.is_closing or not (self.from_client.has_closed and self.from_upstream.has_closed):
            return 0
        # what is left is that both end their connections
        self.is_closing = True
        self.deadline.set(self.settings.websocket_close, 0)
        if self.end_waits:
            self.end_waits = False
            self.upstream.send_end(None)
        return 0

    cdef int take_later(self) except -1:
        if not self.is_turn_due and not self.pressure:
            self.is_turn_due = True
            self.settings.hooks.loop.call_soon(self.take_turn)
        return 0

    def take_turn(self):
        """Go on with messages for which one turn of the loop was too short. Called by the loop."""
        cdef Stream source
        cdef MessageTap tap
        self.is_turn_due = False
        for source in (self.client, self.upstream):
            tap = self.tap_of(source)
            if self.over or self.pressure or self.is_failing:
                return
            if tap.is_behind:
                self.go_on(source, tap)

    cdef int go_on(self, Stream source, MessageTap tap) except -1:
        cdef Stream sink = self.across(source)
        tap.take_turn(sink)
        sink.flush()
        self.show(source, sink, tap)
        if self.over or self.is_failing or tap.wants_pause():
            return 0
        source.resume(PAUSE_TURN)
        # its end may have waited
        return 0 if self.over else self.carry(source)

    cdef int on_tap(self, object tap) except -1:
        cdef MessageTap decided = <MessageTap>tap
        cdef Stream source = self.client if decided is self.from_client else self.upstream
        if self.over or self.is_failing:
            return 0
        self.wait()
        if not self.pressure:
            return self.go_on(source, decided)
        # the handler is behind with what it is shown
        decided.is_behind = True
        self.across(source).flush()
        return self.show(source, self.across(source), decided)

    # ---- messages that the handler puts in

    cdef bint can_inject(self, bint to_client) noexcept:
        cdef MessageTap tap = self.from_upstream if to_client else self.from_client
        cdef bint has_ended = self.upstream_ended if to_client else self.client_ended
        return not (self.over or self.is_failing or has_ended or tap.reader is None or tap.has_closed)

    cdef bint inject(self, Injection injection, bint to_client) except -1:
        cdef MessageTap tap = self.from_upstream if to_client else self.from_client
        if not tap.inject(injection):
            return False
        if not self.is_put_in_due:
            # in a turn of its own: it may be a hook that calls
            self.is_put_in_due = True
            self.settings.hooks.loop.call_soon(self.put_in)
        return True

    def put_in(self):
        """Send the messages of the handler's that wait, as far as they can be sent now. Called by the loop."""
        cdef Stream source, sink
        self.is_put_in_due = False
        for source in (self.client, self.upstream):
            if self.over or self.is_failing:
                return
            sink = self.across(source)
            if self.tap_of(source).injections:
                self.tap_of(source).put_in(sink)
                self.wait()
                sink.flush()
                if not self.over:
                    self.show(source, sink, self.tap_of(source))

    # ---- a Close of ours

    cdef int read_last(self) except -1:
        """Pass on what waits here for the handler to have room, as far as it breaks no rule."""
        cdef ExchangeCallbacks watcher = self.watcher
        cdef Stream source
        cdef MessageTap tap
        for source in (self.client, self.upstream):
            tap = self.tap_of(source)
            if not self.has_told_end(source):
                tap.finish(self.across(source))
                if tap.found:
                    self.across(source).flush()
                    watcher.on_messages(tap)
        return 0

    def fault(self):
        """Return code and reason of the Close for the violation of a side."""
        cdef MessageTap tap = self.from_client if self.from_client.violation else self.from_upstream
        return close_code_of(tap.violation), close_reason_of(tap.violation, tap is self.from_client)

    cdef int fail(self, int violation, bint by_client) except -1:
        return self.close(close_code_of(violation), close_reason_of(violation, by_client))

    cdef int fail_hook(self) except -1:
        self.has_failed = True
        return self.close(1011, FAILED)

    cdef int end_with(self, int code, bytes reason) except -1:
        if self.over or self.is_failing or self.is_closing:
            return 0
        self.read_last()
        if self.over or self.is_failing:
            return 0
        if self.from_client.violation or self.from_upstream.violation:
            code, reason = self.fault()
        return self.close(code, reason)

    cdef int close(self, int code, bytes reason) except -1:
        cdef Stream stream
        cdef DeadlineQueue patience = self.settings.websocket_close
        if self.over or self.is_failing:
            return 0
        self.is_failing = True
        self.end_waits = False
        if self.closed_by == CLOSED_BY_NOBODY:
            self.closed_by = CLOSED_BY_PROXY
            self.close_code = code
        if self.settings.draining and self.settings.tunnel_quiet.seconds < patience.seconds:
            patience = self.settings.tunnel_quiet
        self.deadline.set(patience, 0)
        self.from_client.stop_deciding()
        self.from_upstream.stop_deciding()
        self.say_closes(code, reason)
        for stream in (self.upstream, self.client):
            if self.over:
                return 0
            # what they still send is read, so that nothing resets the connection before the Close has arrived
            stream.resume(~0)
            if not self.over:
                self.drop(stream)
        return 0

    cdef int say_closes(self, int code, bytes reason) except -1:
        self.say_close(self.upstream, self.from_client, code, reason)
        return self.say_close(self.client, self.from_upstream, code, reason)

    cdef int say_close(self, Stream sink, MessageTap tap, int code, bytes reason) except -1:
        cdef MessageWriter writer = MessageWriter(sink is self.upstream)
        cdef bytes close
        if self.has_told_end(self.across(sink)):
            return 0
        if tap.takes_close():
            close = writer.close(code, reason)
            sink.send_content(PyBytes_AS_STRING(close), len(close))
        sink.send_end(None)
        return sink.flush()

    cdef tuple summary(self):
        if self.from_client is None:
            return None
        return self.from_client.messages, self.from_upstream.messages, self.closed_by, self.close_code

    cdef int drop(self, Stream source) except -1:
        cdef Piece piece
        while not self.over and source.next_piece(&piece, NO_ROOM_LIMIT) > 0:
            pass
        if not self.over:
            source.take_content()
        if self.over or not source.is_complete():
            return 0
        if source is self.client:
            self.client_ended = True
        else:
            self.upstream_ended = True
        return self.stop(None) if self.client_ended and self.upstream_ended else 0

    cdef int on_pressure(self, int reason, bint now) except -1:
        cdef Stream source
        self.pressure = self.pressure | reason if now else self.pressure & ~reason
        if self.is_failing:
            return 0
        for source in (self.client, self.upstream):
            if self.over:
                return 0
            if now:
                source.pause(reason)
                continue
            source.resume(reason)
            if not self.over and not self.pressure:
                self.carry(source)
        return 0


cdef EndpointStream new_endpoint_stream(Settings settings, Endpoint endpoint, bint is_client):
    cdef EndpointStream stream = EndpointStream.__new__(EndpointStream)
    stream.settings = settings
    stream.endpoint = endpoint
    stream.is_client = is_client
    return stream


cdef StreamTunnel new_stream_tunnel(Settings settings, Stream client, Stream upstream, object on_end):
    cdef StreamTunnel tunnel = StreamTunnel.__new__(StreamTunnel)
    tunnel.settings = settings
    tunnel.client = client
    tunnel.upstream = upstream
    tunnel.on_end = on_end
    tunnel.closed_by = CLOSED_BY_NOBODY
    tunnel.deadline = Deadline(tunnel)
    return tunnel
