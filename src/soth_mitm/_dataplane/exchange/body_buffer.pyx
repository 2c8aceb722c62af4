"""What is kept of bodies: copies for the handler, and request bodies that are collected before the decision.

A collected body is kept once. Its content grows in one piece and is what the handler is shown; what is not content lies in a second piece.
Sent on, the two are put together again: the frame is read by the rules by which it was accepted, and says itself where content stood.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE, _PyBytes_Resize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy

from soth_mitm._dataplane.http1.framing cimport (
    BODY_CHUNK_END, BODY_CHUNK_SIZE, BODY_CHUNKED, BODY_DATA, BODY_DONE, BODY_FAILED, BODY_LENGTH, BODY_STREAM, BODY_UNTIL_CLOSE,
    Body, body_error_text, body_framing_due, body_next, body_of_request,
    body_of_stream, body_reenter,
)
from soth_mitm._dataplane.wire.fields cimport USUAL_FIELDS, passing_trailers
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.memory.view cimport View, view_bytes, view_of

from soth_mitm.errors import WireError

cdef extern from "pages.h" nogil:
    void soth_prefer_large_pages(const char* p, size_t n) noexcept

cdef extern from *:
    # the limit of a frame is that of its content: `body` bounds what may frame a byte of it
    const Py_ssize_t ENDLESS "PY_SSIZE_T_MAX"

cdef enum:
    LEAST_COPY = 64
    LARGE_COPY = 1048576       # from here on a copy is not grown step by step
    AT_ONCE = 67108864         # but is given so much, or its limit


@cython.final
@cython.freelist(64)
cdef class BodyCopy:
    """The first bytes of a body."""

    def __cinit__(self):
        self.content = b""

    cdef Py_ssize_t add(self, const char* data, Py_ssize_t length) except -1:
        if length > self.limit - self.size:
            length = self.limit - self.size
            self.truncated = True
        if length <= 0:
            return 0
        if self.size == 0 and length > 1:
            self.content = PyBytes_FromStringAndSize(data, length)
        else:
            if self.size == 0:
                # Python shares its bytes objects of no or one byte
                self.content = PyBytes_FromStringAndSize(NULL, LEAST_COPY)
            if self.size + length > PyBytes_GET_SIZE(self.content):
                self.make_room(length)
            memcpy(PyBytes_AS_STRING(self.content) + self.size, data, length)
        self.size += length
        return length

    cdef int make_room(self, Py_ssize_t length) except -1:
        cdef Py_ssize_t capacity = self.size + max(self.size, length)
        if capacity > LARGE_COPY:
            # memory that nobody has written to is not resident, while the place that a step has left may stay so
            capacity = max(capacity, <Py_ssize_t>AT_ONCE)
            self.resize(min(capacity, self.limit))
            soth_prefer_large_pages(PyBytes_AS_STRING(self.content), PyBytes_GET_SIZE(self.content))
            return 0
        return self.resize(min(capacity, self.limit))

    cdef int resize(self, Py_ssize_t capacity) except -1:
        # nobody else has seen it yet
        cdef PyObject* content = <PyObject*>self.content
        Py_INCREF(self.content)
        self.content = None
        _PyBytes_Resize(&content, capacity)
        self.content = <bytes>content
        Py_DECREF(self.content)
        return 0

    cdef bytes whole(self):
        if PyBytes_GET_SIZE(self.content) != self.size:
            self.resize(self.size)
        self.limit = self.size
        return self.content


cdef BodyCopy new_body_copy(Py_ssize_t limit):
    cdef BodyCopy copy = BodyCopy.__new__(BodyCopy)
    copy.limit = limit
    return copy


# it refers to nothing that could refer to it
@cython.no_gc
@cython.final
@cython.freelist(64)
cdef class BufferedBody:
    """A request body that can be shown and sent on, though it is kept once."""

    cdef Py_ssize_t take(self, Body* body, const char* data, Py_ssize_t size, View* trailers) except -1:
        cdef BodyCopy content = self.content
        cdef Py_ssize_t total = 0, framed = 0, count, added
        cdef View payload, lines
        trailers[0] = view_of(data, 0)
        if body.kind == BODY_LENGTH:
            # so that the handler can be shown these very bytes
            size = min(size, content.limit - content.size)
        while total < size:
            count = body_next(body, data + total, size - total, &payload, &lines)
            if count <= 0:
                break
            if body.gap_len:
                # white space that is not sent on
                self.add_framing(data + framed, total + body.gap - framed)
                framed = total + body.gap + body.gap_len
            total += count
            if payload.len:
                added = content.add(payload.ptr, payload.len)
                if added:
                    self.add_framing(data + framed, payload.ptr - (data + framed))
                    framed = (payload.ptr - data) + added
            if lines.len:
                trailers[0] = lines
                if body.trailers_dropped:
                    self.trailers = passing_trailers(lines.ptr, <uint32_t>lines.len)
                    trailers[0] = view_of(PyBytes_AS_STRING(self.trailers), len(self.trailers))
                    self.add_framing(data + framed, lines.ptr - (data + framed))
                    self.add_framing(trailers.ptr, trailers.len)
                    framed = lines.ptr + lines.len - data
        if framed < total:
            self.add_framing(data + framed, total - framed)
        return total

    cdef int add_content(self, const char* data, Py_ssize_t length) except -1:
        cdef Py_ssize_t added = self.content.add(data, length)
        return self.add_framing(data + added, length - added)

    cdef int add_framing(self, const char* data, Py_ssize_t length) except -1:
        if length == 0:
            return 0
        if self.framing is None:
            self.framing = new_body_copy(ENDLESS)
        self.framing.add(data, length)
        return 0

    cdef Py_ssize_t framing_size(self) noexcept:
        return 0 if self.framing is None else self.framing.size

    cdef Py_ssize_t size(self) noexcept:
        return self.content.size + self.framing_size()

    cdef int next_piece(self, char* block, Py_ssize_t size, View* piece) except -1:
        cdef const char* source
        cdef Py_ssize_t filled = 0, count
        while filled < size:
            if self.framing_due == 0 and self.content_due == 0:
                self.find_next()
            if self.framing_due:
                source = PyBytes_AS_STRING(self.framing.content) + self.framing_sent
                count = min(self.framing_due, size - filled)
                self.framing_due -= count
                self.framing_sent += count
            elif self.content_due:
                source = PyBytes_AS_STRING(self.content.content) + self.content_sent
                count = min(self.content_due, size - filled)
                self.content_due -= count
                self.content_sent += count
            else:
                break
            if count == size or (filled == 0 and self.is_sent()):
                piece[0] = view_of(source, count)
                return 0
            memcpy(block + filled, source, count)
            filled += count
        piece[0] = view_of(block, filled)
        return 0

    cdef int find_next(self) except -1:
        cdef Py_ssize_t left = self.content.size - self.content_sent, framed = self.framing_size() - self.framing_sent
        cdef int64_t run = 0
        cdef const char* framing = NULL
        if left == 0 or self.replay.kind == BODY_UNTIL_CLOSE:
            # what came behind the content: its end, or what is beyond the limit
            self.content_due = left
            self.framing_due = 0 if left else framed
            return 0
        if framed:
            framing = PyBytes_AS_STRING(self.framing.content) + self.framing_sent
        self.framing_due = body_framing_due(&self.replay, framing, framed, &run)
        self.content_due = min(run, <int64_t>left)
        if self.content_due == 0:
            raise AssertionError("the frame of a collected body does not say where its content stood")
        return 0

    cdef int next_content(self, Py_ssize_t size, View* piece, View* trailers) except -1:
        cdef const char* source
        cdef Py_ssize_t left = self.content.size - self.content_sent
        cdef int64_t run
        piece[0] = trailers[0] = view_of(NULL, 0)
        if left:
            piece[0] = view_of(PyBytes_AS_STRING(self.content.content) + self.content_sent, min(left, size))
            self.content_sent += piece.len
            return self.pass_content() if piece.len == left else 0
        while self.framing_sent < self.framing_size():
            source = PyBytes_AS_STRING(self.framing.content) + self.framing_sent
            left = self.framing_size() - self.framing_sent
            if self.replay.kind == BODY_STREAM or self.replay.kind == BODY_UNTIL_CLOSE:
                piece[0] = view_of(source, min(left, size))
                self.framing_sent += piece.len
                return 0
            if self.replay.state == BODY_CHUNK_SIZE or self.replay.state == BODY_CHUNK_END:
                left = body_framing_due(&self.replay, source, left, &run)
                if run:
                    body_reenter(&self.replay, run)
            elif self.replay.state == BODY_DATA:
                if size == 0:
                    return 0
                left = body_next(&self.replay, source, min(left, min(size, self.replay.remaining)), piece, NULL)
            else:
                left = body_next(&self.replay, source, left, piece, trailers)
            if left <= 0:
                raise AssertionError("the frame of a collected body cannot be read again")
            self.framing_sent += left
            if piece.len:
                return 0
        return 0

    cdef int pass_content(self) except -1:
        """Read the frame again up to where the content that lies apart from it ends."""
        cdef Py_ssize_t left = self.content.size
        cdef int64_t run = 0
        if self.replay.kind != BODY_CHUNKED:
            return 0
        while left:
            self.framing_sent += body_framing_due(&self.replay, PyBytes_AS_STRING(self.framing.content) + self.framing_sent,
                                                  self.framing_size() - self.framing_sent, &run)
            if run == 0:
                raise AssertionError("the frame of a collected body does not say where its content stood")
            if run > left:
                body_reenter(&self.replay, run - left)
                run = left
            left -= run
        return 0

    cdef bint is_sent(self) noexcept:
        return self.content_sent == self.content.size and self.framing_sent == self.framing_size()

    cdef void rewind(self) noexcept:
        self.replay = self.initial
        self.content_sent = 0
        self.framing_sent = 0
        self.framing_due = 0
        self.content_due = 0


cdef BufferedBody new_buffered_body(Body* body, Py_ssize_t limit):
    cdef BufferedBody collected = BufferedBody.__new__(BufferedBody)
    collected.content = new_body_copy(limit)
    collected.initial = body[0]
    collected.rewind()
    return collected


@cython.final
cdef class BodyKeeper:
    """Collects the body that follows one request head, for tests, fuzzing and tools; the proxy itself uses the functions above."""

    cdef Body body
    cdef BufferedBody collected

    def __cinit__(self, Head head not None, Py_ssize_t limit, Py_ssize_t trailer_limit=65536, bint stream=False):
        if (body_of_stream(&self.body, head, head.method) if stream
                else body_of_request(&self.body, head, trailer_limit, USUAL_FIELDS)) < 0:
            raise WireError(body_error_text(self.body.error), side="client", status=400)
        self.collected = new_buffered_body(&self.body, limit)

    def feed(self, bytes data not None):
        """Take what can be taken of `data`: (bytes consumed, trailer lines). Bytes not consumed are to be fed again.

        Raises WireError when the body is malformed behind what was taken before.
        """
        cdef View trailers
        cdef Py_ssize_t consumed = self.collected.take(&self.body, PyBytes_AS_STRING(data), len(data), &trailers)
        if self.body.state == BODY_FAILED:
            raise WireError(body_error_text(self.body.error), side="client", status=400)
        return consumed, view_bytes(trailers)

    def add(self, bytes data not None):
        """Keep content that came on a stream."""
        self.collected.add_content(PyBytes_AS_STRING(data), len(data))

    @property
    def done(self):
        """True when the message is complete."""
        return self.body.state == BODY_DONE

    @property
    def held(self):
        """How many bytes are kept: of the content, and of what frames it."""
        return self.collected.content.size, self.collected.framing_size()

    @property
    def truncated(self):
        """True when there was more content than is shown."""
        return self.collected.content.truncated

    def show(self):
        """Return the content that a handler is shown; nothing is fed from now on."""
        return self.collected.content.whole()

    def send(self, Py_ssize_t most=65536):
        """Return what is sent on next, at most `most` bytes in one piece; nothing when all is sent."""
        cdef View piece
        cdef bytearray block = bytearray(most)
        self.collected.next_piece(PyByteArray_AS_STRING(block), most, &piece)
        return view_bytes(piece)

    def content(self, Py_ssize_t most=65536):
        """Return what comes next of the content alone, at most `most` bytes, and the trailer lines when they come."""
        cdef View piece, trailers
        self.collected.next_content(most, &piece, &trailers)
        return view_bytes(piece), view_bytes(trailers)

    @property
    def sent(self):
        """True when everything that was kept is sent."""
        return self.collected.is_sent()

    def rewind(self):
        """Send everything once more."""
        self.collected.rewind()
