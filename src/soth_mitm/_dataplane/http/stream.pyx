"""The seam between an exchange and the connections that carry it: what every version of HTTP gives and takes."""

from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.body_buffer cimport BufferedBody, new_buffered_body
from soth_mitm._dataplane.http1.framing cimport Body, body_without_framing
from soth_mitm._dataplane.memory.view cimport View
from soth_mitm._dataplane.memory.waiter cimport Waiter
from soth_mitm._dataplane.transport.callbacks cimport EndpointCallbacks
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits


# not final: an exchange is one
cdef class StreamCallbacks(Waiter):
    """What a stream tells its exchange."""

    cdef int on_head(self, Stream stream, Head head) except -1:
        return 0

    cdef int on_content(self, Stream stream) except -1:
        return 0

    cdef int on_reset(self, Stream stream, object error) except -1:
        return 0

    cdef int on_stream_writable(self, Stream stream, bint now) except -1:
        return 0


# not final: each version of HTTP has its own
cdef class Stream:
    """One exchange's end on one connection."""

    cdef int next_piece(self, Piece* piece, Py_ssize_t most) except -2:
        return 0

    cdef BufferedBody new_buffer(self, Py_ssize_t limit):
        # of content that no bytes frame
        cdef Body body
        body_without_framing(&body)
        return new_buffered_body(&body, limit)

    cdef Py_ssize_t collect_into(self, BufferedBody buffered, View* trailers) except -1:
        cdef Piece piece
        cdef Py_ssize_t total = 0
        while self.next_piece(&piece, NO_ROOM_LIMIT) > 0:
            buffered.add_content(piece.content.ptr, piece.content.len)
            total += piece.content.len
            if piece.trailers.len:
                trailers[0] = piece.trailers
        return total

    cdef Py_ssize_t take_content(self) except -1:
        return 0

    cdef bint is_complete(self) noexcept:
        return True

    cdef bint has_content(self) noexcept:
        return False

    cdef bint is_malformed(self) noexcept:
        return False

    cdef bint ends_by_close(self) noexcept:
        return False

    cdef int64_t content_total(self) noexcept:
        return 0

    cdef int64_t content_left(self) noexcept:
        return 0

    cdef str error_text(self):
        return ""

    cdef int pause(self, int reason) except -1:
        return 0

    cdef bint resume(self, int reason) except -1:
        return False

    cdef int paused(self) noexcept:
        return 0

    cdef bint can_forward_wire(self, Stream sink) noexcept:
        return False

    cdef int forward_wire_to(self, Stream sink) except -1:
        return 0

    cdef int send_request(self, Head head, str authority, bint keep_upgrade, int64_t length, HeadEdits edits) except -1:
        raise NotImplementedError("a stream says how it sends a request")

    cdef int send_interim(self, Head head) except -1:
        return 0

    cdef int send_continue(self) except -1:
        return 0

    cdef int send_response(self, Head head, Stream source, int64_t length, bint is_last, HeadEdits edits) except -1:
        raise NotImplementedError("a stream says how it sends a response")

    cdef int send_content(self, const char* data, Py_ssize_t length) except -1:
        raise NotImplementedError("a stream says how it sends content")

    cdef int send_end(self, bytes trailers) except -1:
        raise NotImplementedError("a stream says how it ends a message")

    cdef int send_wire(self, const char* data, Py_ssize_t length) except -1:
        raise NotImplementedError("this stream has no wire form")

    cdef Py_ssize_t room(self) noexcept:
        return NO_ROOM_LIMIT

    cdef int await_room(self) except -1:
        return 0

    cdef int flush(self) except -1:
        return 0

    cdef bint is_write_paused(self) noexcept:
        return False

    cdef int64_t unsent_total(self) noexcept:
        return 0

    cdef int answer(self, int status, bytes body, object headers, bint is_head, bint is_last) except -1:
        raise NotImplementedError("a stream says how it answers")

    cdef int release(self, Head request, Head response, HttpConnection client) except -1:
        return 0

    cdef int refuse_rest(self) except -1:
        return 0

    cdef int truncate(self, bint has_response, object error) except -1:
        return self.reset(error)

    cdef int reset(self, object error) except -1:
        return 0

    cdef int begin_answer(self, int status, object headers, bint is_head, bint is_last) except -1:
        raise NotImplementedError("a client's stream says how it begins a response of ours")

    cdef int hang_up(self, bint by_reset) except -1:
        raise NotImplementedError("a client's stream says how it ends without an answer")

    cdef bytes objection_to(self, Head response):
        return b""

    cdef bint takes_for_upgrade(self, int status) noexcept:
        return False

    cdef int switch_protocols(self, Stream upstream, Head response) except -1:
        raise NotImplementedError("this stream cannot switch protocols")

    cdef int detach(self) except -1:
        return 0

    cdef bint is_multiplexed(self) noexcept:
        return False

    cdef int64_t number(self) noexcept:
        return 0

    cdef int unprocessed(self) noexcept:
        return PROCESSED_PERHAPS

    cdef bint can_say_unprocessed(self) noexcept:
        return False

    cdef bint authenticates(self, Head request, Head response) noexcept:
        return False

    cdef bint can_switch(self) noexcept:
        return True

    cdef bint is_silent(self) noexcept:
        return False

    cdef bint is_peer_gone(self) noexcept:
        return False

    cdef HttpConnection connection(self):
        return None


# not final: each version of HTTP has its own
cdef class HttpConnection(EndpointCallbacks):
    """A connection that carries streams."""

    cdef int on_exchange_settled(self, Stream stream) except -1:
        return 0

    cdef int reserve(self, HttpConnection upstream) except -1:
        return 0

    cdef bint has_reserved(self, HttpConnection upstream) noexcept:
        return False

    cdef bint has_reserved_of(self, object pool) noexcept:
        return False

    cdef Stream open_reserved(self, StreamCallbacks exchange):
        return None

    cdef int on_route(self, object route, bint once) except -1:
        return 0

    cdef int abort_after(self, object error) except -1:
        return 0

    cdef int on_reserved_closed(self, HttpConnection upstream) except -1:
        return 0
