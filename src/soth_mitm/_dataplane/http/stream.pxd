# The seam between an exchange and the connections that carry it. An exchange knows no wire format: it
# asks and tells a Stream, which is its end on one connection. HTTP/1 has one stream per connection at
# a time, HTTP/2 has many.
#
# An exchange has two streams: the client's (a request comes in, a response goes out) and an upstream's
# (a request goes out, a response comes in). Both are this one interface.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.body_buffer cimport BufferedBody
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.memory.view cimport View
from soth_mitm._dataplane.memory.waiter cimport Waiter
from soth_mitm._dataplane.transport.callbacks cimport EndpointCallbacks
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits


# A part of a message's content as it lies in the connection's memory. Both views are borrowed, until
# take_content(). `trailers` are field lines, each with its CRLF; len 0: none ended here.
cdef struct Piece:
    View content
    View trailers


cdef enum:
    ANY_LENGTH = -1                # of content whose length is not known before its end
    LENGTH_AS_IS = -2              # the head says it, in the framing in which the content goes on
    NO_ROOM_LIMIT = 0x40000000     # what room() says when only pausing bounds what is sent


# Was a request processed? What a retry may rely on (RFC 9110 section 9.2.2, RFC 9113 section 8.7)
cdef enum Unprocessed:
    PROCESSED_PERHAPS = 0      # never sent again
    PROCESSED_UNLIKELY         # the connection was closing already: again, if doing it twice does no harm
    PROCESSED_NOT              # the peer said so: again, whatever it is
    PROCESSED_HTTP1_ONLY       # the same, and that it has to come over HTTP/1.1


# What an exchange is told. Each may end the exchange before it returns.
cdef class StreamCallbacks(Waiter):
    cdef Settings settings             # of the exchange's configuration

    # A head came: of an interim response, a 101 or the final response. Of a request, the connection makes an exchange for it
    cdef int on_head(self, Stream stream, Head head) except -1
    # More content can be read, or the message is complete
    cdef int on_content(self, Stream stream) except -1
    # Nothing more will come, and the message is not complete; or the peer takes no more
    cdef int on_reset(self, Stream stream, object error) except -1
    # The peer does not take what is sent (false), or takes it again (true)
    cdef int on_stream_writable(self, Stream stream, bint now) except -1


cdef class Stream:
    cdef StreamCallbacks callbacks     # the exchange; None: there is none

    # ---- content that comes in

    # The next piece, of at most `most` bytes of content; what frames it may be more. `most` 0: what comes before content, or ends
    # the message. 1: there is one. 0: no more is here now.
    # -1: malformed from here on, error_text() says how; good pieces before it come first
    cdef int next_piece(self, Piece* piece, Py_ssize_t most) except -2
    # All pieces so far were used: they may go. How many bytes of the connection that were
    cdef Py_ssize_t take_content(self) except -1
    # The same for a body that is collected: what is here goes into `buffered`; how many bytes are kept of it. `trailers` as in Piece
    cdef BufferedBody new_buffer(self, Py_ssize_t limit)
    cdef Py_ssize_t collect_into(self, BufferedBody buffered, View* trailers) except -1
    cdef bint is_complete(self) noexcept           # the whole message came
    cdef bint has_content(self) noexcept           # that no piece has covered lies here
    cdef bint is_malformed(self) noexcept
    cdef bint ends_by_close(self) noexcept         # nothing but the end of the connection says where the message ends
    cdef int64_t content_total(self) noexcept      # content bytes of all pieces so far
    cdef int64_t content_left(self) noexcept       # that are still to come; ANY_LENGTH
    cdef str error_text(self)
    # Reading is paused while any reason is set (PauseReason). HTTP/1 pauses its socket, HTTP/2 withholds credit
    cdef int pause(self, int reason) except -1
    # True: it reads again
    cdef bint resume(self, int reason) except -1
    cdef int paused(self) noexcept                 # the reasons

    # ---- the same as bytes of the wire: between two streams of one protocol and one framing, where nothing is edited.
    # What is next read by next_piece() goes to `sink` at take_content(), framing included; None ends that
    cdef bint can_forward_wire(self, Stream sink) noexcept
    cdef int forward_wire_to(self, Stream sink) except -1

    # ---- what goes out; flush() after the last call of a turn. Everything given is taken; room() says how much should be given
    # `length` of the content; 0: there is none, and send_end() does not matter. `edits` of the head, or None; framing is added to them
    cdef int send_request(self, Head head, str authority, bint keep_upgrade, int64_t length, HeadEdits edits) except -1
    cdef int send_interim(self, Head head) except -1
    cdef int send_continue(self) except -1
    # `source` has the response's content, and LENGTH_AS_IS sends it as the head says. Another `length` is that of content which is to come
    # by send_content() alone; the head has it, unless it is ANY_LENGTH. `is_last`: the connection is of no use for another request.
    # `edits`, with ANY_LENGTH only, are those of a head whose content is changed on its way, or None
    cdef int send_response(self, Head head, Stream source, int64_t length, bint is_last, HeadEdits edits) except -1
    cdef int send_content(self, const char* data, Py_ssize_t length) except -1
    cdef int send_end(self, bytes trailers) except -1              # after send_content; not after the wire form
    cdef int send_wire(self, const char* data, Py_ssize_t length) except -1
    cdef Py_ssize_t room(self) noexcept
    # Something waits for room, which was 0: callbacks.on_stream_writable() is to follow
    cdef int await_room(self) except -1
    cdef int flush(self) except -1
    cdef bint is_write_paused(self) noexcept
    cdef int64_t unsent_total(self) noexcept       # bytes that wait in here
    # A response of ours. 1: the exchange is over, since the rest of the request is not read (RFC 9112 section 9.6, RFC 9113 section 8.1)
    # `headers` None: the body is a line for people. `is_last` as in send_response()
    cdef int answer(self, int status, bytes body, object headers, bint is_head, bint is_last) except -1

    # The head of a response of ours whose content is still to come, by send_content(); none comes for `is_head`
    cdef int begin_answer(self, int status, object headers, bint is_head, bint is_last) except -1

    # ---- how it ends
    # Both messages are complete; or, without a request, the stream was not used. `client` is the exchange's connection on the other side
    cdef int release(self, Head request, Head response, HttpConnection client) except -1
    # The response was given whole, and the rest of the request is not wanted
    cdef int refuse_rest(self) except -1
    # What was sent so far arrives, and the peer can tell that it is not all
    cdef int truncate(self, bint has_response, object error) except -1
    # Now; what is queued is lost
    cdef int reset(self, object error) except -1
    # A client's: why this response cannot be its answer, b"": it can
    cdef bytes objection_to(self, Head response)
    # A client's: there is no answer. What was sent before arrives, then a FIN or, `by_reset`, a RST. One stream of several is reset alone
    cdef int hang_up(self, bint by_reset) except -1
    # A client's: would it take that status of a response of ours for a 101?
    cdef bint takes_for_upgrade(self, int status) noexcept
    # Bytes without a protocol from now on (101): both go to a tunnel
    cdef int switch_protocols(self, Stream upstream, Head response) except -1
    # An upstream's: its connection is used for something else from now on, and is no longer its pool's
    cdef int detach(self) except -1

    # One of several on its connection: its resets carry codes of RFC 9113 section 7, and an upstream's has deadlines of its own
    cdef bint is_multiplexed(self) noexcept

    cdef int64_t number(self) noexcept             # among those of its connection; 0: it carries one at a time

    # ---- of an upstream's stream
    cdef int unprocessed(self) noexcept            # Unprocessed
    # That may be PROCESSED_NOT or PROCESSED_HTTP1_ONLY: what is sent is kept until the response begins
    cdef bint can_say_unprocessed(self) noexcept
    # The server takes whatever comes over this connection for one user's from now on (RFC 4559 section 6)
    cdef bint authenticates(self, Head request, Head response) noexcept
    cdef bint can_switch(self) noexcept            # it takes a WebSocket
    cdef bint is_silent(self) noexcept             # nothing came since the request began
    cdef bint is_peer_gone(self) noexcept          # the peer sends no more
    cdef HttpConnection connection(self)


# What carries streams
cdef class HttpConnection(EndpointCallbacks):
    cdef readonly Endpoint endpoint
    cdef public object facts       # of an upstream's: what the control plane knows of it (TLS version, certificate digest, ...)

    # An exchange of ours, and its last hook, has ended; `stream` was its end
    cdef int on_exchange_settled(self, Stream stream) except -1
    # on_connect was asked about a route, and this is the one to take; `once`: the next request asks again
    cdef int on_route(self, object route, bint once) except -1
    # A hook of an exchange whose traffic is over failed, and handler.recover_from_panics is off
    cdef int abort_after(self, object error) except -1
    # An upstream connection that only this client may use, for connection authentication (RFC 4559 section 6)
    cdef int reserve(self, HttpConnection upstream) except -1
    cdef bint has_reserved(self, HttpConnection upstream) noexcept
    cdef bint has_reserved_of(self, object pool) noexcept          # one of that pool
    cdef Stream open_reserved(self, StreamCallbacks exchange)      # None: it has ended meanwhile
    # The reserved connection is gone
    cdef int on_reserved_closed(self, HttpConnection upstream) except -1
