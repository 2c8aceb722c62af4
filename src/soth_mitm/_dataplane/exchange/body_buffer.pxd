# What is kept of a body for the handler, and of a request's body for its upstream, which gets it after the decision.

from soth_mitm._dataplane.http1.framing cimport Body
from soth_mitm._dataplane.memory.view cimport View


# The first `limit` bytes of a body. They grow in place: what is shown in the end was not copied a second time.
cdef class BodyCopy:
    cdef bytes content        # of which the first `size` bytes are the copy
    cdef Py_ssize_t size
    cdef Py_ssize_t limit
    cdef bint truncated

    cdef Py_ssize_t add(self, const char* data, Py_ssize_t length) except -1  # how much of it was kept
    cdef int make_room(self, Py_ssize_t length) except -1
    cdef int resize(self, Py_ssize_t capacity) except -1
    cdef bytes whole(self)                                                    # and no more is added from now on


# A request body that is collected before the decision, kept once: the content that the handler is shown in one piece, and in another all
# the rest as it came, which is chunk-size lines, line ends, trailers, and content beyond the limit. No further record is needed to send it
# on: whoever reads the frame again knows how much content stood where.
cdef class BufferedBody:
    cdef BodyCopy content
    cdef BodyCopy framing     # None: there is nothing but content
    cdef Body initial         # as it was before the first byte
    cdef bytes trailers       # those that pass, when some do not; None else
    # sending
    cdef Body replay             # as far as the frame was read again
    cdef Py_ssize_t content_sent
    cdef Py_ssize_t framing_sent
    cdef Py_ssize_t framing_due  # bytes of the frame that come next
    cdef Py_ssize_t content_due  # bytes of the content that come after them

    # Take what can be taken of the next bytes of the body; how many. Of a body whose length is known no more than the limit.
    # `trailers` is set as by body_next(), borrowed from `data` or from here, without those that are not to be sent on
    cdef Py_ssize_t take(self, Body* body, const char* data, Py_ssize_t size, View* trailers) except -1
    # Keep content of a stream: what is beyond the limit lies in `framing`, where nothing else is
    cdef int add_content(self, const char* data, Py_ssize_t length) except -1
    cdef int add_framing(self, const char* data, Py_ssize_t length) except -1
    cdef Py_ssize_t framing_size(self) noexcept
    cdef Py_ssize_t size(self) noexcept

    # The next bytes as they came, at most `size`: where they lie, borrowed until the body is let go, or else put together in `block`, which
    # holds `size` bytes and may be NULL when there is no frame. len 0: none are left
    cdef int next_piece(self, char* block, Py_ssize_t size, View* piece) except -1
    cdef int find_next(self) except -1
    # The next bytes of the content alone, at most `size`, to be sent on in another framing; borrowed
    # until the body is let go. len 0: none are left, or `size` is 0, which reads on to where content
    # comes next. `trailers` is set by the call that comes to the trailer section, which may be the
    # last one. Between two rewinds use this or next_piece().
    cdef int next_content(self, Py_ssize_t size, View* piece, View* trailers) except -1
    cdef int pass_content(self) except -1
    cdef bint is_sent(self) noexcept
    cdef void rewind(self) noexcept  # it is to be sent once more


cdef BodyCopy new_body_copy(Py_ssize_t limit)
cdef BufferedBody new_buffered_body(Body* body, Py_ssize_t limit)     # of a body of which nothing was consumed yet
