"""Connections that carry many streams at once: a double of what HTTP/2 will be to an exchange, in a wire format of its own.

A frame is its kind (1 byte), the number of its stream (4), the length of its payload (4) and the payload:

    H  a head, as HTTP/1 writes it; an interim response too
    h  the same, and the message ends with it
    D  content
    E  the message ends; the payload is its trailer lines
    R  the stream ends now; the payload says why, and "refused" that the request was not processed
    C  more content may be sent: a number (4)

Each side may send INITIAL_CREDIT of content on a stream before it is given more. Client and upstream speak the same.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint32_t

from soth_mitm._dataplane.exchange.exchange cimport Exchange, new_exchange
from soth_mitm._dataplane.exchange.route cimport Route
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport (
    ANY_LENGTH, NO_ROOM_LIMIT, PROCESSED_NOT, PROCESSED_UNLIKELY, HttpConnection, Piece, Stream, StreamCallbacks,
)
from soth_mitm._dataplane.http1.encoder cimport own_response_bytes, request_head_bytes, response_head_bytes, text_line
from soth_mitm._dataplane.http1.framing cimport (
    BODY_DONE, BODY_FAILED, Body, body_add, body_end, body_error_text, body_of_stream,
)
from soth_mitm._dataplane.http1.head_parser cimport head_error_text, parse_request_head, parse_response_head
from soth_mitm._dataplane.memory.buffer cimport Buffer
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.memory.view cimport view_bytes, view_of
from soth_mitm._dataplane.transport.callbacks cimport PAUSE_SETUP
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.transport.lingering_close cimport close_gracefully
from soth_mitm._dataplane.transport.outbound_endpoint cimport OutboundEndpoint
from soth_mitm._dataplane.upstream.pool cimport PooledConnection
from soth_mitm._dataplane.wire.head cimport HTTP_2, METHOD_HEAD, Head
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits

from soth_mitm.errors import WireError


cdef enum:
    FRAME_HEAD = 9
    INITIAL_CREDIT = 16384
    STAGE_READER = 1


cdef class Channel:
    """The frames of one connection, and its streams by number."""

    cdef Endpoint endpoint
    cdef dict streams

    cdef int write(self, int kind, uint32_t number, const char* data, Py_ssize_t length) except -1:
        cdef char head[FRAME_HEAD]
        cdef int i
        head[0] = <char>kind
        for i in range(4):
            head[1 + i] = <char>(number >> 8 * (3 - i) & 255)
            head[5 + i] = <char>(length >> 8 * (3 - i) & 255)
        self.endpoint.send(head, FRAME_HEAD)
        if length:
            self.endpoint.send(data, length)
        return 0

    cdef tuple read(self):
        """Return the next frame that came whole, or None."""
        cdef Buffer buffer = self.endpoint.read_buffer
        cdef const unsigned char* data
        cdef Py_ssize_t length
        if buffer.size() < FRAME_HEAD:
            return None
        data = <const unsigned char*>buffer.data()
        length = <Py_ssize_t>data[5] << 24 | data[6] << 16 | data[7] << 8 | data[8]
        if buffer.size() < FRAME_HEAD + length:
            return None
        frame = (data[0], <uint32_t>(data[1] << 24 | data[2] << 16 | data[3] << 8 | data[4]),
                 PyBytes_FromStringAndSize(<const char*>data + FRAME_HEAD, length))
        buffer.consume(FRAME_HEAD + length)
        return frame


cdef Channel new_channel(Endpoint endpoint):
    cdef Channel channel = Channel.__new__(Channel)
    channel.endpoint = endpoint
    channel.streams = {}
    return channel


cdef class MuxStream(Stream):
    """What both sides share."""

    cdef Channel channel
    cdef Settings settings
    cdef uint32_t number
    # in
    cdef Body body
    cdef Buffer kept               # content that came and was not taken
    cdef Py_ssize_t lent           # how much of it pieces have covered
    cdef bytes trailers
    cdef bint said_all             # the peer's message is here to its end
    cdef bint has_heard            # something came
    cdef bint has_news             # and was not told, since reading is paused
    cdef int reasons               # why it is
    cdef Py_ssize_t owed           # credit that the peer is to be given
    # out
    cdef Py_ssize_t credit
    cdef list queue                # (kind, payload) that wait for credit
    cdef bint sent_all
    cdef bint is_stalled           # it had no credit when it was last looked
    # the end
    cdef bint is_reset             # by one of the two
    cdef bint is_left              # its exchange has left it
    cdef int processed

    cdef int open(self, Channel channel, Settings settings, uint32_t number) except -1:
        self.channel = channel
        self.settings = settings
        self.number = number
        self.kept = Buffer(channel.endpoint.arena)
        self.queue = []
        self.credit = INITIAL_CREDIT
        channel.streams[number] = self
        return 0

    cdef int on_left(self) except -1:
        """Tell the connection that it has one stream less."""
        return 0

    # ---- frames that come

    cdef int on_frame(self, int kind, bytes payload) except -1:
        if kind == c"C":
            return self.add_credit(int.from_bytes(payload, "big"))
        if kind == c"R":
            return self.on_peer_reset(payload)
        if self.callbacks is None:
            return 0
        self.has_heard = True
        if kind == c"D":
            if self.said_all or self.kept.size() + self.owed + len(payload) > INITIAL_CREDIT:
                raise AssertionError("the peer sent content without credit, or behind its end")
            self.kept.append(PyBytes_AS_STRING(payload), len(payload))
        else:
            self.said_all = True
            self.trailers = payload
        return self.tell()

    cdef int tell(self) except -1:
        cdef StreamCallbacks exchange
        if self.reasons:
            self.has_news = True
            return 0
        self.has_news = False
        # nothing else may hold it, and it may end in the call
        exchange = self.callbacks
        return exchange.on_content(self)

    cdef int on_peer_reset(self, bytes reason) except -1:
        cdef StreamCallbacks exchange = self.callbacks
        self.is_reset = True
        self.queue.clear()
        if reason == b"refused":
            self.processed = PROCESSED_NOT
        if exchange is None:
            return self.leave()
        if self.said_all and self.body.state != BODY_DONE:
            # the message came whole, and some of it is not relayed yet
            return 0
        return exchange.on_reset(self, ConnectionResetError(f"the peer reset the stream: {reason.decode()}"))

    cdef int on_lost(self, object error) except -1:
        """The connection ended."""
        cdef StreamCallbacks exchange = self.callbacks
        self.is_reset = True
        self.queue.clear()
        if exchange is None:
            return self.leave()
        return exchange.on_reset(self, error or ConnectionResetError("the connection was closed"))

    cdef int add_credit(self, Py_ssize_t count) except -1:
        cdef StreamCallbacks exchange = self.callbacks
        cdef bint was_blocked = self.credit <= 0
        self.credit += count
        self.is_stalled = False
        self.pump()
        if was_blocked and exchange is not None and self.room() > 0 and not self.sent_all:
            return exchange.on_stream_writable(self, True)
        return 0

    cdef int on_socket_writable(self, bint now) except -1:
        cdef StreamCallbacks exchange = self.callbacks
        return 0 if exchange is None else exchange.on_stream_writable(self, now and not self.is_write_paused())

    # ---- content that comes in

    cdef int next_piece(self, Piece* piece, Py_ssize_t most) except -2:
        cdef Py_ssize_t here = self.kept.size() - self.lent, count
        piece.content = view_of(NULL, 0)
        piece.trailers = view_of(NULL, 0)
        if self.body.state == BODY_FAILED:
            return -1
        if self.body.state == BODY_DONE:
            return 0
        if here and most > 0:
            count = min(here, most)
            if self.body.remaining > 0:
                count = min(count, <Py_ssize_t>self.body.remaining)
            if body_add(&self.body, count) < 0:
                return -1
            piece.content = view_of(self.kept.data() + self.lent, count)
            self.lent += count
            if count == here and self.said_all and not self.trailers:
                body_end(&self.body)
            return 1
        if here or not self.said_all:
            return 0
        if body_end(&self.body) < 0:
            return -1
        if not self.trailers:
            return 0
        piece.trailers = view_of(PyBytes_AS_STRING(self.trailers), len(self.trailers))
        return 1

    cdef Py_ssize_t take_content(self) except -1:
        cdef Py_ssize_t count = self.lent
        self.kept.consume(count)
        self.lent = 0
        self.owed += count
        self.give_credit()
        return count

    cdef int give_credit(self) except -1:
        cdef bytes number
        if self.owed and not self.reasons and not self.said_all and not self.is_reset:
            number = self.owed.to_bytes(4, "big")
            self.owed = 0
            self.channel.write(c"C", self.number, PyBytes_AS_STRING(number), 4)
        return 0

    cdef bint is_complete(self) noexcept:
        return self.body.state == BODY_DONE

    cdef bint has_content(self) noexcept:
        return self.body.state != BODY_DONE and self.kept.size() > self.lent

    cdef bint is_malformed(self) noexcept:
        return self.body.state == BODY_FAILED

    cdef int64_t content_total(self) noexcept:
        return self.body.payload_total

    cdef int64_t content_left(self) noexcept:
        return 0 if self.body.state == BODY_DONE else self.body.remaining

    cdef str error_text(self):
        return body_error_text(self.body.error)

    cdef int pause(self, int reason) except -1:
        self.reasons |= reason
        return 0

    cdef bint resume(self, int reason) except -1:
        # the exchange may let go of us in the call
        cdef MuxStream held = self
        if self.reasons & reason:
            self.reasons &= ~reason
            if not self.reasons and self.callbacks is not None:
                self.give_credit()
                self.channel.endpoint.flush()
                if held.has_news:
                    held.tell()
        return self.reasons == 0

    cdef int paused(self) noexcept:
        return self.reasons

    # ---- what goes out

    cdef int send_frame(self, int kind, bytes payload) except -1:
        if self.queue:
            self.queue.append((kind, payload))
            return 0
        return self.channel.write(kind, self.number, PyBytes_AS_STRING(payload), len(payload))

    cdef int send_head(self, bytes head, bint is_last) except -1:
        if self.is_reset:
            return 0
        self.sent_all = is_last
        return self.send_frame(c"h" if is_last else c"H", head)

    cdef int send_content(self, const char* data, Py_ssize_t length) except -1:
        if length == 0 or self.is_reset or self.sent_all:
            return 0
        if self.queue or length > self.credit:
            self.queue.append((c"D", view_bytes(view_of(data, length))))
            return self.pump()
        self.credit -= length
        return self.channel.write(c"D", self.number, data, length)

    cdef int pump(self) except -1:
        """Send what waits, as far as there is credit."""
        cdef Py_ssize_t count
        cdef int kind
        cdef bytes payload
        while self.queue:
            kind, payload = self.queue[0]
            count = len(payload)
            if kind == c"D":
                count = min(count, self.credit)
                if count <= 0:
                    return 0
                self.credit -= count
            self.channel.write(kind, self.number, PyBytes_AS_STRING(payload), count)
            if count < len(payload):
                self.queue[0] = (kind, payload[count:])
            else:
                self.queue.pop(0)
        return self.leave() if self.is_left else 0

    cdef int send_end(self, bytes trailers) except -1:
        if self.is_reset or self.sent_all:
            return 0
        self.sent_all = True
        return self.send_frame(c"E", trailers or b"")

    cdef Py_ssize_t room(self) noexcept:
        if self.is_reset:
            return NO_ROOM_LIMIT
        return 0 if self.queue else self.credit

    cdef int flush(self) except -1:
        return self.channel.endpoint.flush()

    cdef bint is_write_paused(self) noexcept:
        return not self.is_reset and (self.channel.endpoint.is_write_paused() or (self.room() <= 0 and not self.sent_all))

    cdef int64_t unsent_total(self) noexcept:
        return self.channel.endpoint.unsent

    # ---- how it ends

    cdef int leave(self) except -1:
        self.callbacks = None
        self.kept.drop()
        self.lent = 0
        self.is_left = True
        if not self.queue and self.channel.streams.pop(self.number, None) is not None:
            self.channel.endpoint.flush()
            return self.on_left()
        return 0

    cdef int release(self, Head request, Head response, HttpConnection client) except -1:
        return self.leave()

    cdef int refuse_rest(self) except -1:
        if not self.said_all and not self.is_reset:
            self.send_frame(c"R", b"no more")
        self.leave()
        return 1

    cdef int truncate(self, bint has_response, object error) except -1:
        if not self.is_reset:
            self.send_frame(c"R", b"cut")
        return self.leave()

    cdef int reset(self, object error) except -1:
        self.queue.clear()
        if not self.is_reset and not (self.sent_all and self.said_all):
            self.send_frame(c"R", b"reset")
        self.is_reset = True
        return self.leave()

    cdef int unprocessed(self) noexcept:
        return self.processed

    cdef bint can_say_unprocessed(self) noexcept:
        return True

    cdef bint is_silent(self) noexcept:
        return not self.has_heard

    cdef bint is_peer_gone(self) noexcept:
        return self.is_reset


# ---- the client's side


@cython.final
cdef class MuxServerConnection(HttpConnection):
    """The requests of one client connection. `router` and `on_end` as those of an `Http1ServerConnection`."""

    cdef Settings settings
    cdef Channel channel
    cdef object router
    cdef object on_end
    cdef uint32_t last
    cdef Py_ssize_t unsettled
    cdef bint is_leaving           # it ends with its last stream
    cdef bint is_over
    cdef bint end_reported
    cdef Deadline reader_deadline

    def __cinit__(self, Settings settings not None, Endpoint client not None, on_end, *, router not None):
        self.settings = settings
        self.endpoint = client
        self.on_end = on_end
        self.router = router
        self.channel = new_channel(client)
        self.reader_deadline = Deadline(self)

    def start(self):
        self.endpoint.callbacks = self
        if self.endpoint.is_gone():
            self.on_closed(self.endpoint, None)
            return
        self.on_data(self.endpoint)
        self.endpoint.resume_reading(PAUSE_SETUP)

    def drain(self):
        """Close when the last stream has ended; requests that come meanwhile are refused."""
        self.is_leaving = True
        self.check_leaving()

    def abort(self):
        self.endpoint.abort(ConnectionAbortedError("aborted"))

    @property
    def open_streams(self):
        return len(self.channel.streams)

    cdef int on_data(self, object endpoint) except -1:
        cdef MuxServerStream stream
        cdef tuple frame
        while not self.endpoint.is_gone() and (frame := self.channel.read()) is not None:
            kind, number, payload = frame
            stream = self.channel.streams.get(number)
            if stream is not None:
                stream.on_frame(kind, payload)
            elif number > self.last and kind in (c"H", c"h"):
                self.last = number
                self.open_request(number, payload, kind == c"h")
        if not self.endpoint.is_gone():
            self.endpoint.flush()
        return 0

    cdef int open_request(self, uint32_t number, bytes text, bint is_whole) except -1:
        cdef MuxServerStream stream = MuxServerStream.__new__(MuxServerStream)
        cdef Exchange exchange
        cdef Head head = Head()
        cdef Py_ssize_t scanned = 0
        cdef Route route
        cdef bint is_refused
        stream.owner = self
        stream.open(self.channel, self.settings, number)
        if self.is_leaving:
            stream.send_frame(c"R", b"refused")
            return stream.leave()
        if parse_request_head(head, PyBytes_AS_STRING(text), len(text), self.settings.head_limit, self.settings.most_fields,
                              &scanned) != len(text):
            self.settings.counters.requests_refused += 1
            stream.said_all = is_whole
            stream.body.state = BODY_DONE
            stream.answer(400, head_error_text(head.error).encode(), None, False, False)
            stream.refuse_rest()
            return 0
        head.version = HTTP_2
        is_refused = body_of_stream(&stream.body, head, 0) < 0
        if is_whole:
            stream.said_all = True
            is_refused = is_refused or body_end(&stream.body) < 0
        stream.is_head_request = head.method == METHOD_HEAD
        host = b"" if head.host < 0 else view_bytes(head.span(head.fields[head.host].value, head.fields[head.host].value_len))
        route = self.router(None, host)
        exchange = new_exchange(self.settings, self, stream, route, head)
        self.unsettled += 1
        stream.callbacks = exchange
        if is_refused:
            exchange.refuse(400, body_error_text(stream.body.error).encode())
            return exchange.advance()
        return exchange.start()

    cdef int on_exchange_settled(self, Stream stream) except -1:
        self.unsettled -= 1
        return self.check_end()

    cdef int abort_after(self, object error) except -1:
        return self.endpoint.abort(error)

    cdef int on_writable(self, object endpoint, bint now) except -1:
        cdef MuxServerStream stream
        for stream in list(self.channel.streams.values()):
            stream.on_socket_writable(now)
        return 0

    cdef int await_readers(self) except -1:
        if self.reader_deadline.queue is None:
            self.reader_deadline.set(self.settings.body_idle, STAGE_READER)
        return 0

    cdef int on_deadline(self, int stage) except -1:
        cdef MuxServerStream stream
        cdef Exchange exchange
        cdef bint some_wait = False
        for stream in list(self.channel.streams.values()):
            if stream.room() > 0 or stream.is_left:
                continue
            if stream.is_stalled:
                exchange = <Exchange>stream.callbacks
                exchange.abort(TimeoutError("the client gives no credit"))
            else:
                stream.is_stalled = True
                some_wait = True
        return self.await_readers() if some_wait else 0

    cdef int on_eof(self, object endpoint, bint clean) except -1:
        cdef MuxServerStream stream
        # a client that ends its direction is gone
        self.is_leaving = True
        for stream in list(self.channel.streams.values()):
            stream.on_lost(None)
        return self.check_leaving()

    cdef int on_closed(self, object endpoint, object error) except -1:
        cdef MuxServerStream stream
        self.is_over = True
        self.reader_deadline.clear()
        for stream in list(self.channel.streams.values()):
            stream.on_lost(error)
        return self.check_end()

    cdef int check_leaving(self) except -1:
        if self.is_leaving and not self.is_over and not self.channel.streams:
            self.is_over = True
            self.reader_deadline.clear()
            close_gracefully(self.endpoint, self.settings)
        return 0

    cdef int check_end(self) except -1:
        if self.endpoint.is_gone() and self.unsettled == 0 and not self.end_reported:
            self.end_reported = True
            self.on_end()
        return 0


@cython.final
cdef class MuxServerStream(MuxStream):
    """A request that comes in and its response that goes out."""

    cdef MuxServerConnection owner
    cdef bint is_head_request

    cdef int on_left(self) except -1:
        return self.owner.check_leaving()

    cdef int send_interim(self, Head head) except -1:
        return self.send_frame(c"H", response_head_bytes(head, False, False, False, False))

    cdef int send_continue(self) except -1:
        self.send_frame(c"H", b"HTTP/1.1 100 Continue\r\n\r\n")
        self.flush()
        return 1

    cdef int send_response(self, Head head, Stream source, int64_t length, bint is_last, HeadEdits edits) except -1:
        if edits is None and head.chunked:
            edits = HeadEdits()
            edits.frame_without_content()
        return self.send_head(response_head_bytes(head, False, False, False, False, edits),
                              source.is_complete() and source.content_total() == 0)

    cdef int send_content(self, const char* data, Py_ssize_t length) except -1:
        MuxStream.send_content(self, data, length)
        return self.owner.await_readers() if self.room() <= 0 else 0

    cdef int answer(self, int status, bytes body, object headers, bint is_head, bint is_last) except -1:
        cdef bint is_unread = self.body.state != BODY_DONE
        if headers is None:
            body = text_line(body)
        is_head = is_head or status == 204 or status == 304 or not body
        self.send_head(own_response_bytes(status, body, headers, False, True), is_head)
        if not is_head:
            self.send_content(PyBytes_AS_STRING(body), len(body))
            self.send_end(None)
        if not is_unread:
            self.flush()
            return 0
        return self.refuse_rest()

    cdef HttpConnection connection(self):
        return self.owner


# ---- the upstream's side


@cython.final
cdef class MuxClientConnection(PooledConnection):
    """An upstream's connection over `endpoint`, which carries `max_streams` at a time."""

    cdef Channel channel
    cdef uint32_t last
    cdef Py_ssize_t max_streams

    def __cinit__(self, OutboundEndpoint endpoint not None, Py_ssize_t max_streams):
        self.endpoint = endpoint
        self.facts = endpoint.facts
        self.usable_for = -1
        self.deadline = Deadline(self)
        self.channel = new_channel(endpoint)
        self.max_streams = max_streams

    @property
    def open_streams(self):
        return len(self.channel.streams)

    def limit(self, Py_ssize_t max_streams):
        """It carries so many from now on, as a peer's SETTINGS may say."""
        self.max_streams = max_streams
        if self.pool is not None:
            self.pool.offer(self)

    cdef bint begin(self) except -1:
        if not self.endpoint.is_gone():
            self.endpoint.callbacks = self
        self.endpoint.resume_reading(PAUSE_SETUP)
        return not self.is_ending()

    cdef Py_ssize_t free_streams(self) noexcept:
        return 0 if self.is_ending() else max(0, self.max_streams - <Py_ssize_t>len(self.channel.streams))

    cdef bint is_idle(self) noexcept:
        return not self.channel.streams

    cdef bint is_live(self) except -1:
        if self.is_ending():
            return False
        return len(self.channel.streams) > 0 or (<OutboundEndpoint>self.endpoint).is_live()

    cdef Stream open_stream(self, StreamCallbacks exchange):
        cdef MuxClientStream stream = MuxClientStream.__new__(MuxClientStream)
        self.last += 1
        stream.owner = self
        stream.open(self.channel, exchange.settings, self.last)
        stream.callbacks = exchange
        return stream

    cdef int on_data(self, object endpoint) except -1:
        cdef MuxClientStream stream
        cdef tuple frame
        while not self.endpoint.is_gone() and (frame := self.channel.read()) is not None:
            kind, number, payload = frame
            stream = self.channel.streams.get(number)
            if stream is None:
                # it was reset meanwhile
                continue
            if kind in (c"H", c"h"):
                stream.on_response_head(payload, kind == c"h")
            else:
                stream.on_frame(kind, payload)
        if not self.endpoint.is_gone():
            self.endpoint.flush()
        return 0

    cdef int on_writable(self, object endpoint, bint now) except -1:
        cdef MuxClientStream stream
        for stream in list(self.channel.streams.values()):
            stream.on_socket_writable(now)
        return 0

    cdef int on_eof(self, object endpoint, bint clean) except -1:
        self.lose_streams(None)
        return self.endpoint.close()

    cdef int on_closed(self, object endpoint, object error) except -1:
        self.lose_streams(error)
        return 0 if self.pool is None else self.pool.discard(self)

    cdef int lose_streams(self, object error) except -1:
        cdef MuxClientStream stream
        for stream in list(self.channel.streams.values()):
            if not stream.has_heard and self.served > <int64_t>len(self.channel.streams):
                stream.processed = PROCESSED_UNLIKELY
            stream.on_lost(error)
        return 0

    cdef int stream_left(self) except -1:
        if self.pool is not None:
            return self.pool.release(self)
        return self.endpoint.close() if not self.channel.streams and not self.endpoint.is_gone() else 0


@cython.final
cdef class MuxClientStream(MuxStream):
    """A request that goes out and its response that comes in."""

    cdef MuxClientConnection owner
    cdef int method

    cdef int on_left(self) except -1:
        return self.owner.stream_left()

    cdef int on_response_head(self, bytes text, bint is_whole) except -1:
        cdef StreamCallbacks exchange = self.callbacks
        cdef Head head = Head()
        cdef Py_ssize_t scanned = 0
        if exchange is None:
            return 0
        self.has_heard = True
        if parse_response_head(head, PyBytes_AS_STRING(text), len(text), self.settings.head_limit, self.settings.most_fields,
                               &scanned) != len(text):
            return self.fail(f"the upstream's response is malformed: {head_error_text(head.error)}")
        head.version = HTTP_2
        if head.status >= 200:
            body_of_stream(&self.body, head, self.method)
            if is_whole:
                self.said_all = True
                if body_end(&self.body) < 0:
                    return self.fail(f"the upstream's response is malformed: {self.error_text()}")
        return exchange.on_head(self, head)

    cdef int fail(self, str text) except -1:
        cdef StreamCallbacks exchange = self.callbacks
        return exchange.on_reset(self, WireError(text, side="upstream", status=502))

    cdef int send_request(self, Head head, str authority, bint keep_upgrade, int64_t length, HeadEdits edits) except -1:
        if head.chunked:
            edits = HeadEdits() if edits is None else edits
            if length == ANY_LENGTH:
                edits.frame_without_content()
            else:
                edits.frame_with_length(length)
        self.method = head.method
        return self.send_head(request_head_bytes(head, False, authority, edits), length == 0)

    cdef int detach(self) except -1:
        raise AssertionError("a stream of many is not detached")

    cdef HttpConnection connection(self):
        return self.owner
