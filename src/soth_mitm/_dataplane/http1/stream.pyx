"""One exchange's end on an HTTP/1 connection: content out of its framing and into it (RFC 9112
sections 6 and 7).
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int64_t, uint32_t

from soth_mitm._dataplane.exchange.body_buffer cimport BufferedBody, new_buffered_body
from soth_mitm._dataplane.http.stream cimport ANY_LENGTH, Piece, Stream
from soth_mitm._dataplane.http1.encoder cimport CHUNK_LINE_ROOM, chunk_line, last_chunk
from soth_mitm._dataplane.http1.framing cimport (
    BODY_CHUNKED, BODY_DATA, BODY_DONE, BODY_FAILED, BODY_LENGTH, BODY_UNTIL_CLOSE, body_error_text,
    body_next_within,
)
from soth_mitm._dataplane.memory.view cimport View, view_of
from soth_mitm._dataplane.transport.callbacks cimport PAUSE_BUFFER_FULL
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.wire.fields cimport passing_trailers


# not final: each side derives from it
cdef class Http1Stream(Stream):
    """What both sides of HTTP/1 share."""

    # ---- content that comes in

    cdef int next_piece(self, Piece* piece, Py_ssize_t most) except -2:
        cdef const char* data = self.endpoint.read_buffer.data() + self.offset
        cdef Py_ssize_t size = self.endpoint.read_buffer.size() - self.offset, count
        if size == 0:
            return 0
        count = body_next_within(&self.body, data, size, most, &piece.content, &piece.trailers)
        if count <= 0:
            return <int>count
        if self.body.gap_len and self.sink is not None:
            # white space that is not sent on
            self.sink.send_wire(
                data - self.offset + self.forwarded, self.offset + self.body.gap - self.forwarded)
            self.forwarded = self.offset + self.body.gap + self.body.gap_len
        if piece.trailers.len and self.body.trailers_dropped:
            self.lines = passing_trailers(piece.trailers.ptr, <uint32_t>piece.trailers.len)
            self.lines_at = self.offset + (piece.trailers.ptr - data)
            self.lines_end = self.lines_at + piece.trailers.len
            piece.trailers = view_of(PyBytes_AS_STRING(self.lines), len(self.lines))
            self.settings.counters.trailers_dropped += 1
        self.offset += count
        return 1

    cdef Py_ssize_t take_content(self) except -1:
        cdef Py_ssize_t count = self.offset
        if count == 0:
            return 0
        if self.sink is not None:
            if self.lines is not None:
                self.sink.send_wire(
                    self.endpoint.read_buffer.data() + self.forwarded,
                    self.lines_at - self.forwarded)
                self.sink.send_wire(PyBytes_AS_STRING(self.lines), len(self.lines))
                self.forwarded = self.lines_end
            self.sink.send_wire(
                self.endpoint.read_buffer.data() + self.forwarded, count - self.forwarded)
        self.lines = None
        self.offset = 0
        self.forwarded = 0
        self.count_in(count)
        self.consume(count)
        return count

    cdef int consume(self, Py_ssize_t count) except -1:
        self.endpoint.read_buffer.consume(count)
        if self.endpoint.paused & PAUSE_BUFFER_FULL:
            self.endpoint.resume_reading(PAUSE_BUFFER_FULL)
        return 0

    cdef BufferedBody new_buffer(self, Py_ssize_t limit):
        return new_buffered_body(&self.body, limit)

    cdef Py_ssize_t collect_into(self, BufferedBody buffered, View* trailers) except -1:
        cdef Py_ssize_t size = self.endpoint.read_buffer.size(), count, held = buffered.size()
        trailers[0] = view_of(NULL, 0)
        if size == 0:
            return 0
        count = buffered.take(&self.body, self.endpoint.read_buffer.data(), size, trailers)
        if count and buffered.trailers is not None:
            self.settings.counters.trailers_dropped += 1
        self.offset = count
        # without the trailers that were dropped
        return buffered.size() - held

    cdef bint is_complete(self) noexcept:
        return self.body.state == BODY_DONE

    cdef bint has_content(self) noexcept:
        return self.body.state == BODY_DATA and self.endpoint.read_buffer.size() > self.offset

    cdef bint is_malformed(self) noexcept:
        return self.body.state == BODY_FAILED

    cdef bint ends_by_close(self) noexcept:
        return self.body.kind == BODY_UNTIL_CLOSE

    cdef int64_t content_total(self) noexcept:
        return self.body.payload_total

    cdef int64_t content_left(self) noexcept:
        if self.body.state == BODY_DONE:
            return 0
        return self.body.remaining if self.body.kind == BODY_LENGTH else <int64_t>ANY_LENGTH

    cdef str error_text(self):
        return body_error_text(self.body.error)

    cdef int pause(self, int reason) except -1:
        return self.endpoint.pause_reading(reason)

    cdef bint resume(self, int reason) except -1:
        # the exchange may let go of us in the call
        cdef Endpoint endpoint = self.endpoint
        endpoint.resume_reading(reason)
        return endpoint.paused == 0

    cdef int paused(self) noexcept:
        return self.endpoint.paused

    cdef bint can_forward_wire(self, Stream sink) noexcept:
        return isinstance(sink, Http1Stream) and (
            self.body.kind != BODY_CHUNKED or (<Http1Stream>sink).out_framing != OUT_UNTIL_CLOSE)

    cdef int forward_wire_to(self, Stream sink) except -1:
        self.sink = <Http1Stream>sink
        return 0

    # ---- what goes out

    cdef int send_head_bytes(self, bytes head) except -1:
        self.endpoint.send_bytes(head)
        return self.count_out(len(head))

    cdef int send_wire(self, const char* data, Py_ssize_t length) except -1:
        self.endpoint.send(data, length)
        return self.count_out(length)

    cdef int send_content(self, const char* data, Py_ssize_t length) except -1:
        cdef char line[CHUNK_LINE_ROOM]
        cdef int count
        if length == 0:
            # an empty chunk would end the message
            return 0
        if self.out_framing != OUT_CHUNKED:
            return self.send_wire(data, length)
        count = chunk_line(line, length)
        self.endpoint.send(line, count)
        self.endpoint.send(data, length)
        self.endpoint.send(b"\r\n", 2)
        return self.count_out(count + length + 2)

    cdef int send_end(self, bytes trailers) except -1:
        if self.out_framing != OUT_CHUNKED:
            if trailers:
                # only chunks have a trailer section
                self.settings.counters.trailers_dropped += 1
            return 0
        return self.send_head_bytes(last_chunk(trailers))

    cdef int flush(self) except -1:
        return self.endpoint.flush()

    cdef bint is_write_paused(self) noexcept:
        return self.endpoint.is_write_paused()

    cdef int64_t unsent_total(self) noexcept:
        return self.endpoint.unsent

    cdef bint is_peer_gone(self) noexcept:
        return self.endpoint.has_told_eof() or self.endpoint.is_gone()

    cdef int count_in(self, Py_ssize_t count) except -1:
        return 0

    cdef int count_out(self, Py_ssize_t count) except -1:
        return 0
