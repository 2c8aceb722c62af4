"""What is kept of bodies: copies for the handler, and request bodies that are collected before the decision.

A collected body is kept once. Its content grows in one piece and is what the handler is shown; what is not content lies in a second piece.
Sent on, the two are put together again: the frame is read by the rules by which it was accepted, and says itself where content stood.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE, _PyBytes_Resize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from soth_mitm._dataplane.http1.framing cimport (
    BODY_CHUNK_END, BODY_CHUNK_SIZE, BODY_CHUNKED, BODY_DATA, BODY_DONE, BODY_FAILED, BODY_LENGTH, BODY_STREAM,
    Body, body_error_text, body_frame, body_next, body_of_request,
    body_of_stream, body_reenter,
)
from soth_mitm._dataplane.wire.fields cimport USUAL_FIELDS
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
cdef class Copy:
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


cdef Copy new_copy(Py_ssize_t limit):
    cdef Copy copy = Copy.__new__(Copy)
    copy.limit = limit
    return copy


# it refers to nothing that could refer to it
@cython.no_gc
@cython.final
@cython.freelist(64)
cdef class Collected:
    """A request body that can be shown and sent on, though it is kept once."""

    cdef Py_ssize_t take(self, Body* body, const char* data, Py_ssize_t size, View* trailers) except -1:
        cdef Copy content = self.content
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
            total += count
            if lines.len:
                trailers[0] = lines
            if payload.len:
                added = content.add(payload.ptr, payload.len)
                if added:
                    self.add_frame(data + framed, payload.ptr - (data + framed))
                    framed = (payload.ptr - data) + added
        if framed < total:
            self.add_frame(data + framed, total - framed)
        return total

    cdef int add_content(self, const char* data, Py_ssize_t length) except -1:
        cdef Py_ssize_t added = self.content.add(data, length)
        return self.add_frame(data + added, length - added)

    cdef int add_frame(self, const char* data, Py_ssize_t length) except -1:
        if length == 0:
            return 0
        if self.frame is None:
            self.frame = new_copy(ENDLESS)
        self.frame.add(data, length)
        return 0

    cdef Py_ssize_t frame_size(self) noexcept:
        return 0 if self.frame is None else self.frame.size

    cdef Py_ssize_t size(self) noexcept:
        return self.content.size + self.frame_size()

    cdef int next_piece(self, char* block, Py_ssize_t size, View* piece) except -1:
        cdef const char* source
        cdef Py_ssize_t filled = 0, count
        while filled < size:
            if self.due == 0 and self.run == 0:
                self.find_run()
            if self.due:
                source = PyBytes_AS_STRING(self.frame.content) + self.frame_sent
                count = min(self.due, size - filled)
                self.due -= count
                self.frame_sent += count
            elif self.run:
                source = PyBytes_AS_STRING(self.content.content) + self.content_sent
                count = min(self.run, size - filled)
                self.run -= count
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

    cdef int find_run(self) except -1:
        cdef Py_ssize_t left = self.content.size - self.content_sent, framed = self.frame_size() - self.frame_sent
        cdef int64_t run = 0
        if left == 0:
            # what came behind the content: its end, or what is beyond the limit
            self.due = framed
            return 0
        self.due = body_frame(&self.told, PyBytes_AS_STRING(self.frame.content) + self.frame_sent if framed else NULL, framed, &run)
        self.run = min(run, <int64_t>left)
        if self.run == 0:
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
        while self.frame_sent < self.frame_size():
            source = PyBytes_AS_STRING(self.frame.content) + self.frame_sent
            left = self.frame_size() - self.frame_sent
            if self.told.kind == BODY_STREAM:
                piece[0] = view_of(source, min(left, size))
                self.frame_sent += piece.len
                return 0
            if self.told.state == BODY_CHUNK_SIZE or self.told.state == BODY_CHUNK_END:
                left = body_frame(&self.told, source, left, &run)
                if run:
                    body_reenter(&self.told, run)
            elif self.told.state == BODY_DATA:
                left = body_next(&self.told, source, min(left, min(size, self.told.remaining)), piece, NULL)
            else:
                left = body_next(&self.told, source, left, piece, trailers)
            if left <= 0:
                raise AssertionError("the frame of a collected body cannot be read again")
            self.frame_sent += left
            if piece.len:
                return 0
        return 0

    cdef int pass_content(self) except -1:
        """Read the frame again up to where the content that lies apart from it ends."""
        cdef Py_ssize_t left = self.content.size
        cdef int64_t run = 0
        if self.told.kind != BODY_CHUNKED:
            return 0
        while left:
            self.frame_sent += body_frame(&self.told, PyBytes_AS_STRING(self.frame.content) + self.frame_sent,
                                          self.frame_size() - self.frame_sent, &run)
            if run == 0:
                raise AssertionError("the frame of a collected body does not say where its content stood")
            if run > left:
                body_reenter(&self.told, run - left)
                run = left
            left -= run
        return 0

    cdef bint is_sent(self) noexcept:
        return self.content_sent == self.content.size and self.frame_sent == self.frame_size()

    cdef void rewind(self) noexcept:
        self.told = self.begun
        self.content_sent = 0
        self.frame_sent = 0
        self.due = 0
        self.run = 0


cdef Collected new_collected(Body* body, Py_ssize_t limit):
    cdef Collected collected = Collected.__new__(Collected)
    collected.content = new_copy(limit)
    collected.begun = body[0]
    collected.rewind()
    return collected


@cython.final
cdef class BodyKeeper:
    """Collects the body that follows one request head, for tests, fuzzing and tools; the proxy itself uses the functions above."""

    cdef Body body
    cdef Collected collected

    def __cinit__(self, Head head not None, Py_ssize_t limit, Py_ssize_t trailer_limit=65536, bint stream=False):
        if (body_of_stream(&self.body, head, head.method) if stream
                else body_of_request(&self.body, head, trailer_limit, USUAL_FIELDS)) < 0:
            raise WireError(body_error_text(self.body.error), side="client", status=400)
        self.collected = new_collected(&self.body, limit)

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
        return self.collected.content.size, self.collected.frame_size()

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
