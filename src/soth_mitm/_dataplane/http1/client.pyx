"""An upstream's connection that speaks HTTP/1: it sends a request, reads the response's heads, and
says whether it may be used again.

A connection is used again only if its last response was complete and both sides may go on
(RFC 9112 section 9.3).
"""

cimport cython
from libc.stdint cimport int64_t

from soth_mitm._dataplane.http.stream cimport (
    ANY_LENGTH, LENGTH_AS_IS, PROCESSED_PERHAPS, PROCESSED_UNLIKELY, HttpConnection, Stream,
    StreamCallbacks,
)
from soth_mitm._dataplane.http1.connection_auth cimport authenticates_connection
from soth_mitm._dataplane.http1.connection_state cimport (
    CLIENT_ACQUIRE, CLIENT_CLOSE, CLIENT_CLOSED, CLIENT_CONTENT, CLIENT_FINAL_HEAD, CLIENT_HEAD,
    CLIENT_IDLE, CLIENT_RELEASE, CLIENT_REQUEST, ClientInput, ClientState, next_client_state,
)
from soth_mitm._dataplane.http1.encoder cimport request_head_bytes
from soth_mitm._dataplane.http1.framing cimport (
    BODY_DONE, BODY_UNTIL_CLOSE, Body, body_eof, body_error_text, body_next, body_of_response,
    body_without_framing,
)
from soth_mitm._dataplane.http1.head_parser cimport (
    HEAD_MALFORMED, HEAD_MORE, HEAD_TOO_LARGE, head_error_text, parse_response_head, too_large_text,
)
from soth_mitm._dataplane.http1.stream cimport OUT_CHUNKED, OUT_PLAIN, Http1Stream
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.memory.view cimport View
from soth_mitm._dataplane.transport.callbacks cimport PAUSE_DECISION, PAUSE_SETUP
from soth_mitm._dataplane.transport.lingering_close cimport close_gracefully
from soth_mitm._dataplane.transport.outbound_endpoint cimport OutboundEndpoint
from soth_mitm._dataplane.upstream.pool cimport OriginPool, PooledConnection
from soth_mitm._dataplane.wire.head cimport (
    FIELD_KEEP_ALIVE, METHOD_PATCH, METHOD_POST, METHOD_PUT, Head,
)
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits
from soth_mitm._dataplane.wire.scan cimport soth_equals_lower
from soth_mitm.errors import WireError


cdef double keep_alive_seconds(const char* value, Py_ssize_t length) noexcept nogil:
    """Return the number behind `timeout=` in a Keep-Alive field, -1 if there is none."""
    cdef Py_ssize_t at = 0, digits = 0
    cdef double seconds = 0
    while at + 8 < length:
        if soth_equals_lower(value + at, b"timeout=", 8) and (
                at == 0 or value[at - 1] in (c" ", c"\t", c",", c";")):
            at += 8
            while at + digits < length and digits < 9 and c"0" <= value[at + digits] <= c"9":
                seconds = seconds * 10 + (value[at + digits] - c"0")
                digits += 1
            return seconds if digits else -1
        at += 1
    return -1


cdef bint announces_nothing(Head response) noexcept:
    """Tell whether it announces content that its status does not have, and that may come all the
    same.
    """
    if response.status == 204:
        return response.chunked or response.content_length > 0
    return response.status == 304 and response.chunked


@cython.final
cdef class Http1ClientConnection(PooledConnection):
    """An upstream's connection over `endpoint`, which is connected and whose TLS handshake is over.

    While it is idle it must be silent: whatever happens to it ends it.
    """

    def __cinit__(self, OutboundEndpoint endpoint not None):
        self.endpoint = endpoint
        self.facts = endpoint.facts
        self.usable_for = -1
        self.deadline = Deadline(self)
        self.stream = Http1ClientStream.__new__(Http1ClientStream)
        self.stream.owner = self
        self.stream.endpoint = endpoint

    cdef int move(self, ClientInput event) except -1:
        cdef int state = next_client_state(self.state, event)
        if state < 0:
            raise AssertionError(
                f"an upstream's connection in state {self.state} has no input {event}")
        self.state = <ClientState>state
        return 0

    # ---- for the pool

    cdef bint begin(self) except -1:
        if not self.endpoint.is_gone():
            self.endpoint.callbacks = self
        # paused since its handshake
        self.endpoint.resume_reading(PAUSE_SETUP)
        return not (
            self.is_ending() or self.state == CLIENT_CLOSED or self.endpoint.read_buffer.size()
            or self.endpoint.waits_turn)

    cdef Py_ssize_t free_streams(self) noexcept:
        return self.state == CLIENT_IDLE

    cdef bint is_idle(self) noexcept:
        return self.state == CLIENT_IDLE

    cdef bint is_live(self) except -1:
        return self.state == CLIENT_IDLE and (<OutboundEndpoint>self.endpoint).is_live()

    cdef Stream open_stream(self, StreamCallbacks exchange):
        self.move(CLIENT_ACQUIRE)
        self.stream.callbacks = exchange
        self.stream.settings = exchange.settings
        return self.stream

    cdef Stream open_reserved_stream(self, StreamCallbacks exchange):
        if not self.is_live():
            return None
        self.served += 1
        return self.open_stream(exchange)

    # ---- responses

    cdef int read_heads(self) except -1:
        cdef StreamCallbacks exchange
        cdef Head head
        cdef Py_ssize_t size, used
        cdef bytes why
        while self.state == CLIENT_HEAD:
            exchange = self.stream.callbacks
            size = self.endpoint.read_buffer.size()
            if size == 0 or self.endpoint.paused & PAUSE_DECISION:
                # what follows a 101 that is being decided on is no head
                return 0
            head = Head()
            used = parse_response_head(
                head, self.endpoint.read_buffer.data(), size, exchange.settings.head_limit,
                exchange.settings.most_fields, &self.scanned)
            if used == HEAD_MORE:
                return 0
            if used == HEAD_TOO_LARGE:
                why = too_large_text(
                    head, exchange.settings.head_limit, exchange.settings.most_fields)
                return self.fail_exchange(b"the upstream's response head " + why)
            if used == HEAD_MALFORMED:
                return self.fail_exchange(
                    b"the upstream's response is malformed: "
                    + head_error_text(head.error).encode())
            self.scanned = 0
            self.stream.count_in(used)
            self.stream.consume(used)
            if self.state != CLIENT_HEAD or self.stream.callbacks is not exchange:
                return 0
            if head.status >= 200:
                return self.begin_content(head)
            exchange.on_head(self.stream, head)
        return 0

    cdef int begin_content(self, Head head) except -1:
        cdef StreamCallbacks exchange = self.stream.callbacks
        cdef Body seen
        cdef View payload
        body_of_response(
            &self.stream.body, head, self.method, exchange.settings.head_limit,
            exchange.settings.most_fields)
        # a body that is malformed from its first byte on is found before the head leaves
        seen = self.stream.body
        if body_next(&seen, self.endpoint.read_buffer.data(), self.endpoint.read_buffer.size(),
                     &payload, NULL) < 0:
            return self.fail_exchange(
                b"the upstream's response is malformed: " + body_error_text(seen.error).encode())
        self.move(CLIENT_FINAL_HEAD)
        return exchange.on_head(self.stream, head)

    cdef int fail_exchange(self, bytes text) except -1:
        cdef StreamCallbacks exchange = self.stream.callbacks
        return exchange.on_reset(self.stream, WireError(text.decode(), side="upstream", status=502))

    cdef int on_data(self, object endpoint) except -1:
        # a reference of our own: it may end meanwhile
        cdef StreamCallbacks exchange = self.stream.callbacks
        if self.state == CLIENT_HEAD:
            return self.read_heads()
        if self.state == CLIENT_CONTENT:
            return exchange.on_content(self.stream)
        if self.state == CLIENT_IDLE:
            # it spoke before it was asked
            return self.endpoint.abort(None)
        return 0

    cdef int on_eof(self, object endpoint, bint clean) except -1:
        cdef StreamCallbacks exchange = self.stream.callbacks
        if self.state == CLIENT_IDLE:
            return self.endpoint.close()
        if self.state == CLIENT_CLOSED:
            return 0
        if (self.state == CLIENT_CONTENT and clean and self.stream.body.state != BODY_DONE
                and body_eof(&self.stream.body) == 0):
            return exchange.on_content(self.stream)
        return exchange.on_reset(
            self.stream, ConnectionResetError("the upstream closed the connection"))

    cdef int on_closed(self, object endpoint, object error) except -1:
        cdef StreamCallbacks exchange = self.stream.callbacks
        cdef HttpConnection client = self.reserved_for
        cdef object refusal = None
        cdef bint was_idle = self.state == CLIENT_IDLE
        if self.state == CLIENT_CLOSED:
            if exchange is None:
                self.stream.owner = None
            return 0
        if self.pool is not None and error is not None:
            refusal = self.pool.explain_failure(self, error, was_idle)
        if exchange is not None:
            exchange.on_reset(
                self.stream,
                refusal or error or ConnectionResetError("the upstream closed the connection"))
        elif client is not None:
            client.on_reserved_closed(self)
        if self.state != CLIENT_CLOSED:
            self.leave_exchange()
            self.move(CLIENT_CLOSE)
        if self.pool is not None:
            self.pool.discard(self)
        return 0

    cdef int on_writable(self, object endpoint, bint now) except -1:
        cdef StreamCallbacks exchange = self.stream.callbacks
        return 0 if exchange is None else exchange.on_stream_writable(self.stream, now)

    # ---- the end of an exchange

    cdef int leave_exchange(self) except -1:
        self.stream.callbacks = None
        self.stream.sink = None
        self.stream.offset = 0
        self.stream.forwarded = 0
        if self.endpoint.is_gone():
            # it refers to us
            self.stream.owner = None
        return 0

    cdef int obey(self, Head response) except -1:
        cdef double seconds = -1
        cdef int index = response.find_known(FIELD_KEEP_ALIVE) if response.has_hop else -1
        if index >= 0:
            seconds = keep_alive_seconds(
                response.base() + response.fields[index].value, response.fields[index].value_len)
        if seconds >= 0:
            # the last second is for what is under way when it closes
            self.usable_for = seconds - min(1.0, seconds / 2)
        return 0

    cdef int release(self, Head request, Head response, HttpConnection client) except -1:
        cdef bint is_reserved = self.reserved_for is not None
        self.leave_exchange()
        if self.state == CLIENT_CLOSED:
            return 0
        if response is not None:
            # unsent: with an early response the last of the request may still be here. Another
            # client's request is not to wait behind it
            if (self.pool is None
                    or not response.keeps_alive()
                    or self.endpoint.read_buffer.size()
                    or self.endpoint.has_unsent()
                    or self.stream.body.kind == BODY_UNTIL_CLOSE or announces_nothing(response)):
                if is_reserved:
                    # the server knew the client by it
                    self.reserved_for.on_reserved_closed(self)
                return self.close_unusable()
            self.obey(response)
            if not is_reserved and authenticates_connection(request, response):
                if not client.reserve(self):
                    # a client that has many exchanges at a time: none of them may go on over it
                    return self.close_unusable()
                self.reserved_for = client
                self.reserved_pool = self.pool
                is_reserved = True
        self.move(CLIENT_RELEASE)
        self.endpoint.resume_all()
        if self.is_ending() or self.state != CLIENT_IDLE:
            # what was not read of the last response, because its client was slow, was more than
            # that response
            return 0 if self.pool is None else self.retire()
        return 0 if is_reserved else self.pool.release(self)

    cdef int close_unusable(self) except -1:
        if self.pool is not None:
            self.pool.discard(self)
        self.move(CLIENT_CLOSE)
        return close_gracefully(self.endpoint, self.stream.settings)

    cdef int retire(self) except -1:
        cdef OriginPool pool = self.pool
        self.reserved_for = None
        self.reserved_pool = None
        if self.state != CLIENT_CLOSED:
            self.move(CLIENT_CLOSE)
        if pool is not None:
            pool.discard(self)
        return self.endpoint.close()


cdef inline bint says_no_content(int method) noexcept nogil:
    # RFC 9110 section 8.6: where content has a meaning, its absence is said. Some origins wait for
    # content, or answer 411, when no length is given.
    return method == METHOD_POST or method == METHOD_PUT or method == METHOD_PATCH


@cython.final
cdef class Http1ClientStream(Http1Stream):
    """A request that goes out and its response that comes in."""

    cdef int count_in(self, Py_ssize_t count) except -1:
        self.settings.counters.bytes_from_upstreams += count
        return 0

    cdef int count_out(self, Py_ssize_t count) except -1:
        self.settings.counters.bytes_to_upstreams += count
        return 0

    cdef int send_request(self, Head head, str authority, bint keep_upgrade,
                          int64_t length, HeadEdits edits) except -1:
        cdef Http1ClientConnection owner = self.owner
        self.out_framing = OUT_PLAIN
        # a length that is not known is not that of a head which has none
        if length == ANY_LENGTH or (length != LENGTH_AS_IS and length != head.content_length):
            edits = HeadEdits() if edits is None else edits
            if length == ANY_LENGTH:
                self.out_framing = OUT_CHUNKED
                edits.frame_with_chunks()
            elif length or head.chunked or says_no_content(head.method):
                edits.frame_with_length(length)
        owner.bytes_before = self.endpoint.bytes_in
        owner.scanned = 0
        owner.method = head.method
        # that of the response before is complete, and of this one nothing is, a 101 included
        body_without_framing(&self.body)
        owner.move(CLIENT_REQUEST)
        return self.send_head_bytes(request_head_bytes(head, keep_upgrade, authority, edits))

    cdef int unprocessed(self) noexcept:
        if self.owner.served < 2 or self.owner.reserved_for is not None or not self.is_silent():
            return PROCESSED_PERHAPS
        return PROCESSED_UNLIKELY

    cdef bint authenticates(self, Head request, Head response) noexcept:
        return authenticates_connection(request, response)

    cdef bint is_silent(self) noexcept:
        # None: it was lost after the response had come whole
        return self.owner is not None and self.endpoint.bytes_in == self.owner.bytes_before

    cdef int release(self, Head request, Head response, HttpConnection client) except -1:
        cdef Http1ClientConnection owner = self.owner
        # None: it was lost after the response had come whole
        return 0 if owner is None else owner.release(request, response, client)

    cdef int reset(self, object error) except -1:
        cdef Http1ClientConnection owner = self.owner
        if owner is None:
            return 0
        owner.leave_exchange()
        if owner.state != CLIENT_CLOSED:
            owner.move(CLIENT_CLOSE)
        if owner.reserved_for is not None:
            owner.reserved_for.on_reserved_closed(owner)
        if owner.pool is not None:
            owner.pool.discard(owner)
        return self.endpoint.abort(error)

    cdef int detach(self) except -1:
        cdef Http1ClientConnection owner = self.owner
        owner.leave_exchange()
        owner.move(CLIENT_CLOSE)
        return 0 if owner.pool is None else owner.pool.discard(owner)

    cdef HttpConnection connection(self):
        return self.owner
