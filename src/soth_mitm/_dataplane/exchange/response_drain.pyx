"""The rest of a response that is not wanted, read to its end so that the upstream's connection can be used again.

Only where the rest is short and the connection carries one response at a time: to reset it would cost a new connection. The client does
not wait for this.
"""

cimport cython

from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport NO_ROOM_LIMIT, Piece, Stream, StreamCallbacks
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.wire.head cimport Head


cdef enum:
    MOST_DRAINED = 65536       # bytes


@cython.final
cdef class ResponseDrain(StreamCallbacks):
    """Discards what comes."""

    cdef int on_content(self, Stream stream) except -1:
        cdef Piece piece
        cdef Stream upstream = self.upstream
        if upstream is None:
            return 0
        while upstream.next_piece(&piece, NO_ROOM_LIMIT) > 0:
            self.left -= piece.content.len
        upstream.take_content()
        if upstream.is_malformed() or self.left < 0:
            return self.drop()
        if not upstream.is_complete():
            return 0
        self.upstream = None
        self.deadline.clear()
        return upstream.release(self.request, self.response, None)

    cdef int on_reset(self, Stream stream, object error) except -1:
        return self.drop()

    cdef int on_deadline(self, int stage) except -1:
        return self.drop()

    cdef int drop(self) except -1:
        cdef Stream upstream = self.upstream
        if upstream is None:
            return 0
        self.upstream = None
        self.deadline.clear()
        return upstream.reset(None)


cdef int drain_response(Settings settings, Stream upstream, Head request, Head response) except -1:
    cdef ResponseDrain drain = ResponseDrain.__new__(ResponseDrain)
    drain.settings = settings
    drain.upstream = upstream
    drain.request = request
    drain.response = response
    drain.left = MOST_DRAINED
    drain.deadline = Deadline(drain)
    upstream.callbacks = drain
    if upstream.content_left() > MOST_DRAINED or upstream.ends_by_close():
        return upstream.reset(None)
    drain.deadline.set(settings.last_wait(), 0)
    upstream.resume(upstream.paused())
    return drain.on_content(upstream)
