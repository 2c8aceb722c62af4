"""What is seen of a message on its way: one direction of it, decoded and framed for the handler."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING

from soth_mitm._dataplane.exchange.budget_share cimport LEAST_HELD, BudgetShare
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.memory.view cimport View, view_bytes
from soth_mitm._dataplane.wire.decode cimport decoder_for
from soth_mitm._dataplane.wire.framer cimport Framer
from soth_mitm._dataplane.wire.grpc cimport GrpcFramer
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.wire.headers cimport content_encoding_of
from soth_mitm._dataplane.wire.streams cimport framer_of


cdef enum:
    MOST_FRAMES = 64           # that are shown in one turn of the loop, and what one piece has beyond them


@cython.final
@cython.freelist(16)
cdef class FrameTap:
    """Frames the content that passes."""

    cdef int observe(self, View content) except -1:
        if content.len == 0 or self.framer is None:
            return 0
        if self.decoder is None:
            self.frame(content.ptr, content.len)
            return self.count()
        self.decoded = self.decoder.feed(view_bytes(content))
        self.decoded_at = 0
        return self.frame_decoded()

    cdef int frame(self, const char* data, Py_ssize_t length) except -1:
        if self.share.must_cut():
            self.framer.hold_no_more(LEAST_HELD)
        self.framer.feed(data, length, self.found)
        return 0

    cdef int frame_decoded(self) except -1:
        # little that is encoded may be very much, and each turn of the loop is shared by all
        cdef Py_ssize_t size, step
        cdef int steps = 0
        if self.decoded is None:
            return 0
        if self.framer is None:
            self.decoded = None
            return 0
        size = len(self.decoded)
        while self.decoded_at < size:
            if steps == MOST_STEPS or len(self.found) >= MOST_FRAMES:
                return self.count()
            step = min(size - self.decoded_at, <Py_ssize_t>FRAMED_AT_ONCE)
            self.frame(PyBytes_AS_STRING(self.decoded) + self.decoded_at, step)
            self.decoded_at += step
            steps += 1
        self.decoded = None
        if self.decoder.error is not None:
            # what was decoded before is shown; the traffic goes on without being framed
            self.settings.counters.framing_errors += 1
            self.framer = None
        return self.count()

    cdef bint has_enough(self) except -1:
        return self.decoded is not None or len(self.found) >= MOST_FRAMES

    cdef int count(self) except -1:
        cdef Py_ssize_t before = self.held
        self.held = 0 if self.framer is None else self.framer.unfinished()
        if self.decoded is not None:
            self.held += len(self.decoded)
        if self.held > before:
            return self.share.charge(self.held - before)
        return self.share.refund(before - self.held) if self.held < before else 0

    cdef int finish(self) except -1:
        cdef bytes plain
        cdef Framer framer = self.framer
        if self.decoded is not None:
            # it was cut in the middle of them
            self.decoded = None
            self.settings.counters.framing_errors += 1
            self.count()
        if framer is None:
            return 0
        if self.decoder is not None:
            plain = self.decoder.finish()
            framer.feed(plain, len(plain), self.found)
        framer.finish(self.found)
        self.framer = None
        self.settings.counters.framing_errors += framer.error_count
        self.count()
        if type(framer) is GrpcFramer and (<GrpcFramer>framer).trailers:
            self.trailers = (<GrpcFramer>framer).trailers
        return 0

    cdef int stop(self) except -1:
        self.framer = None
        self.found = []
        self.decoded = None
        return self.count()


cdef FrameTap new_frame_tap(Settings settings, BudgetShare share, int stream, Head head, str direction):
    cdef FrameTap tap = FrameTap.__new__(FrameTap)
    tap.settings = settings
    tap.share = share
    tap.framer = framer_of(stream, head, settings.body_limit)
    tap.decoder = decoder_for(content_encoding_of(head), settings.body_limit, True)
    tap.found = []
    tap.direction = direction
    return tap
