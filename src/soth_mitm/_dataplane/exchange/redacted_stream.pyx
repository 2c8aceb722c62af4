"""A response without the values of credentials, whatever an upstream writes into it.

It stands between the upstream's stream and the exchange, so the handler, the copies and the client all see what it gives: content that is
decoded, and values turned back into placeholders, also across the borders of pieces. Only what may begin a value is held back.

In gRPC a value becomes as many asterisks, since messages say how long they are, and nothing is held back behind the end of a message:
there a client may have to answer before more comes. A compressed message is had whole, and leaves without compression if it has a value in
it. What is held is charged to the budget.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint64_t

from soth_mitm._dataplane.exchange.budget_share cimport BudgetShare
from soth_mitm._dataplane.http.stream cimport ANY_LENGTH, HttpConnection, Piece, Stream, StreamCallbacks
from soth_mitm._dataplane.http1.head_parser cimport HEAD_MALFORMED, HEAD_TOO_LARGE, parse_response_head
from soth_mitm._dataplane.memory.view cimport view_bytes, view_of
from soth_mitm._dataplane.wire.decode cimport CODED_AT_ONCE, DECODED_AT_ONCE, decoder_for
from soth_mitm._dataplane.wire.grpc cimport COMPRESSED, PART_CONTENT, PART_END, PART_PACKED, GrpcParts, grpc_message
from soth_mitm._dataplane.wire.head cimport Field, Head
from soth_mitm._dataplane.wire.headers cimport content_encoding_of
from soth_mitm._dataplane.wire.redactor cimport Redactor, SearchedStrings


# What is wrong of a body that may have changed (RFC 9110 section 8, RFC 9530)
BODY_FIELDS = (
    b"content-length", b"transfer-encoding", b"content-encoding", b"etag", b"last-modified", b"accept-ranges",
    b"content-md5", b"digest", b"content-digest", b"repr-digest",
)


cdef bytes in_one_piece(SearchedStrings strings, bytes data):
    cdef Redactor redactor = Redactor(strings)
    cdef bytes left = redactor.feed(data), rest = redactor.finish()
    return left + rest if rest else left


cdef Head redacted_head(Head head, SearchedStrings strings, bint drops_body):
    cdef list parts = []
    cdef list kept = []
    cdef bytes raw = head.raw
    cdef Field* field
    cdef Head redacted
    cdef Py_ssize_t scanned = 0, used, at = 0
    cdef int i
    for i in range(head.count):
        field = &head.fields[i]
        if drops_body and raw[field.line:field.line + field.name_len].lower() in BODY_FIELDS:
            parts.append(raw[at:field.line])
            at = field.line + field.line_len
        else:
            kept.append(i)
    parts.append(raw[at:])
    raw = in_one_piece(strings, b"".join(parts))
    if raw == head.raw:
        return head
    redacted = Head()
    used = parse_response_head(redacted, PyBytes_AS_STRING(raw), len(raw), len(raw) + 1, head.count + 1, &scanned)
    if used == HEAD_MALFORMED or used == HEAD_TOO_LARGE or used != len(raw) or redacted.count != len(kept):
        raise ValueError("a head with a placeholder in it is read in another way")
    redacted.version = head.version
    for i in range(redacted.count):
        redacted.fields[i].hop = head.fields[<int>kept[i]].hop
        redacted.fields[i].sensitive = head.fields[<int>kept[i]].sensitive
    return redacted


@cython.final
cdef class RedactedCallbacks(StreamCallbacks):
    """What the stream inside tells, told in the name of the one around it."""

    cdef int on_content(self, Stream stream) except -1:
        return self.exchange.on_content(self.stream)

    cdef int on_reset(self, Stream stream, object error) except -1:
        if stream.is_complete():
            # all of it is here, and is still to be given
            return 0
        return self.exchange.on_reset(self.stream, error)

    cdef int on_stream_writable(self, Stream stream, bint now) except -1:
        return self.exchange.on_stream_writable(self.stream, now)


@cython.final
cdef class RedactedStream(Stream):
    """The response of an upstream's stream without values. Everything else is the stream's own."""

    # ---- content that comes in

    cdef int next_piece(self, Piece* piece, Py_ssize_t most) except -2:
        cdef Piece found
        cdef int count
        piece.content = view_of(NULL, 0)
        piece.trailers = view_of(NULL, 0)
        while True:
            if self.left():
                if most <= 0:
                    return 0
                piece.content = view_of(PyBytes_AS_STRING(self.ready) + self.given, min(most, self.left()))
                self.given += piece.content.len
                self.total += piece.content.len
                return 1
            if self.has_failed:
                return -1
            if self.trailers is not None:
                self.borrowed.append(self.trailers)
                piece.trailers = view_of(PyBytes_AS_STRING(self.trailers), len(self.trailers))
                self.trailers = None
                return 1
            if self.is_flushed:
                return 0
            found.trailers = view_of(NULL, 0)
            count = self.inner.next_piece(&found, most if self.decoder is None else min(most, <Py_ssize_t>CODED_AT_ONCE))
            if count < 0:
                return count
            if count == 0:
                if not self.inner.is_complete():
                    return 0
                self.flush_end()
                continue
            if found.content.len:
                self.take_in(view_bytes(found.content))
            if found.trailers.len:
                self.flush_end()
                self.trailers = in_one_piece(self.searched, view_bytes(found.trailers))

    cdef int take_in(self, bytes data) except -1:
        if self.decoder is not None:
            data = self.decoder.feed(data)
            self.fail(self.decoder.error)
        self.ready = self.redactor.feed(data) if self.messages is None else self.redact_messages(data)
        self.given = 0
        self.borrowed.append(self.ready)
        return self.count()

    cdef int fail(self, str error) except -1:
        if error is not None:
            self.has_failed = True
            self.failure = error
        return 0

    cdef bytes redact_messages(self, bytes data):
        cdef list parts = self.messages.feed(data)
        cdef list out = []
        cdef bytes piece
        if parts is None:
            self.fail(self.messages.error)
            return b""
        for kind, piece in parts:
            if kind == PART_PACKED:
                piece = self.redacted_message(piece)
                if piece is None:
                    self.fail(self.messages.error)
                    break
            elif kind == PART_CONTENT:
                piece = self.redactor.feed(piece)
            elif kind == PART_END:
                piece = self.redactor.finish()
            out.append(piece)
        return b"".join(out)

    cdef bytes redacted_message(self, bytes message):
        cdef bytes content = self.messages.unpacked(message)
        cdef uint64_t before = self.redactor.replaced
        if content is None:
            return None
        content = self.redactor.feed(content) + self.redactor.finish()
        return message if self.redactor.replaced == before else grpc_message(message[0] & ~COMPRESSED, content)

    cdef int flush_end(self) except -1:
        cdef bytes tail = b""
        if self.is_flushed:
            return 0
        self.is_flushed = True
        if self.decoder is not None:
            tail = self.decoder.finish()
            self.fail(self.decoder.error)
        if self.messages is not None:
            tail = self.redact_messages(tail) + self.messages.prefix + self.redactor.finish()
            if self.messages.packed is not None:
                self.fail("a compressed message of gRPC is cut")
        else:
            tail = self.redactor.feed(tail) + self.redactor.finish()
        # a piece may have content and trailers
        self.ready = self.ready[self.given:] + tail if self.left() else tail
        self.given = 0
        self.borrowed.append(self.ready)
        if self.redactor.replaced:
            self.callbacks.settings.credentials.count_redacted(self.redactor.replaced)
        return self.count()

    cdef int count(self) except -1:
        cdef Py_ssize_t before = self.counted
        if self.share.owner is None:
            # it has given all back
            return 0
        self.counted = 0 if self.is_left else (
            self.left() + PyBytes_GET_SIZE(self.redactor.held) + (0 if self.messages is None else self.messages.held()))
        if self.counted > before:
            return self.share.charge(self.counted - before)
        return self.share.refund(before - self.counted) if self.counted < before else 0

    cdef int leave(self) except -1:
        self.is_left = True
        return self.count()

    cdef Py_ssize_t left(self) noexcept:
        return PyBytes_GET_SIZE(self.ready) - self.given

    cdef Py_ssize_t take_content(self) except -1:
        cdef Py_ssize_t count = self.inner.take_content()
        self.borrowed = [self.ready]
        self.count()
        return count

    cdef bint is_complete(self) noexcept:
        return self.is_flushed and not self.left() and self.trailers is None and not self.has_failed

    cdef bint has_content(self) noexcept:
        return self.left() > 0 or self.inner.has_content()

    cdef bint is_malformed(self) noexcept:
        return (self.has_failed and not self.left()) or self.inner.is_malformed()

    cdef bint ends_by_close(self) noexcept:
        return self.inner.ends_by_close()

    cdef int64_t content_total(self) noexcept:
        return self.total

    cdef int64_t content_left(self) noexcept:
        return 0 if self.is_complete() else <int64_t>ANY_LENGTH

    cdef str error_text(self):
        if self.has_failed:
            return f"it cannot be decoded, and so not searched for values of credentials ({self.failure})"
        return self.inner.error_text()

    cdef int pause(self, int reason) except -1:
        return self.inner.pause(reason)

    cdef bint resume(self, int reason) except -1:
        return self.inner.resume(reason)

    cdef int paused(self) noexcept:
        return self.inner.paused()

    # ---- the request that goes out

    cdef int send_content(self, const char* data, Py_ssize_t length) except -1:
        return self.inner.send_content(data, length)

    cdef int send_end(self, bytes trailers) except -1:
        return self.inner.send_end(trailers)

    cdef int send_wire(self, const char* data, Py_ssize_t length) except -1:
        return self.inner.send_wire(data, length)

    cdef Py_ssize_t room(self) noexcept:
        return self.inner.room()

    cdef int await_room(self) except -1:
        return self.inner.await_room()

    cdef int flush(self) except -1:
        return self.inner.flush()

    cdef bint is_write_paused(self) noexcept:
        return self.inner.is_write_paused()

    cdef int64_t unsent_total(self) noexcept:
        return self.inner.unsent_total()

    # ---- how it ends

    cdef int release(self, Head request, Head response, HttpConnection client) except -1:
        self.leave()
        return self.inner.release(request, response, client)

    cdef int truncate(self, bint has_response, object error) except -1:
        self.leave()
        return self.inner.truncate(has_response, error)

    cdef int reset(self, object error) except -1:
        self.leave()
        return self.inner.reset(error)

    cdef int detach(self) except -1:
        self.leave()
        return self.inner.detach()

    cdef bint is_multiplexed(self) noexcept:
        return self.inner.is_multiplexed()

    cdef int unprocessed(self) noexcept:
        return self.inner.unprocessed()

    cdef bint can_say_unprocessed(self) noexcept:
        return self.inner.can_say_unprocessed()

    cdef bint authenticates(self, Head request, Head response) noexcept:
        return self.inner.authenticates(request, response)

    cdef bint can_switch(self) noexcept:
        return self.inner.can_switch()

    cdef bint is_silent(self) noexcept:
        return self.inner.is_silent()

    cdef bint is_peer_gone(self) noexcept:
        return self.inner.is_peer_gone()

    cdef HttpConnection connection(self):
        return self.inner.connection()


cdef RedactedStream new_redacted_stream(
        Stream inner, StreamCallbacks exchange, BudgetShare share, Head head, SearchedStrings strings, GrpcParts messages):
    cdef RedactedStream stream = RedactedStream.__new__(RedactedStream)
    cdef RedactedCallbacks callbacks = RedactedCallbacks.__new__(RedactedCallbacks)
    stream.decoder = decoder_for(content_encoding_of(head), DECODED_AT_ONCE, True)
    if stream.decoder is not None and stream.decoder.error is not None:
        return None
    if messages is not None:
        coding = decoder_for(messages.encoding, DECODED_AT_ONCE)
        if coding is not None and coding.error is not None:
            return None
    stream.inner = inner
    stream.share = share
    stream.searched = strings
    stream.redactor = Redactor(strings)
    stream.ready = b""
    stream.borrowed = []
    stream.messages = messages
    callbacks.exchange = exchange
    callbacks.settings = exchange.settings
    callbacks.stream = stream
    stream.callbacks = exchange
    inner.callbacks = callbacks
    return stream


def redacted(Head head not None, dict strings not None, bint drops_body):
    """Return the head without values. For tests."""
    return redacted_head(head, SearchedStrings(strings), drops_body)
