"""The content of one message on its way through stages.

Whoever moves it feeds what has come, as long as the stages take it, and says when a turn of the loop begins. What they do not take now lies
here: at most one piece of what came, with its codings removed.
"""

from binascii import b2a_base64

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from soth_mitm._dataplane.exchange.budget_share cimport BudgetShare
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stages cimport ContentStage, SendStage
from soth_mitm._dataplane.http.stream cimport Stream
from soth_mitm._dataplane.memory.view cimport View, view_bytes
from soth_mitm._dataplane.wire.decode cimport decoder_for
from soth_mitm._dataplane.wire.grpc cimport GrpcFramer
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits
from soth_mitm._dataplane.wire.headers cimport content_encoding_of


cdef enum:
    DECODED_AT_A_TIME = 65536      # about so many bytes are unpacked before the stages take them


# What describes the bytes of a representation, and is wrong of others (RFC 9110 sections 8.8 and 14.3, RFC 9530)
DESCRIBING = (b"etag", b"last-modified", b"accept-ranges", b"content-md5", b"digest", b"content-digest", b"repr-digest")


@cython.final
cdef class TextStage(ContentStage):
    """Puts the base64 of gRPC-Web on, piece by piece."""

    cdef Py_ssize_t feed(self, const char* data, Py_ssize_t length) except -1:
        cdef bytes text = b2a_base64(data[:length], newline=False)
        self.next.feed(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        return length


@cython.final
cdef class StagedContent:
    """Content of one message, and its stages."""

    # ---- the stages

    cdef int add(self, ContentStage stage) except -1:
        if self.first is None:
            self.first = stage
        else:
            self.last_added.next = stage
        self.last_added = stage
        return 0

    cdef int send_to(self, Stream sink) except -1:
        self.last = SendStage()
        self.last.sink = sink
        return self.add(self.last)

    cdef HeadEdits head_edits(self, HeadEdits edits):
        edits = HeadEdits() if edits is None else edits
        edits.frame_without_content()
        for name in DESCRIBING:
            edits.put(name, None)
        if self.decoder is not None:
            edits.put(b"content-encoding", None)
        return edits

    # ---- content

    cdef int feed(self, View content) except -1:
        cdef Py_ssize_t taken
        if self.decoder is None and self.text is None:
            taken = self.first.feed(content.ptr, content.len)
            if taken < content.len and not self.is_closed:
                self.rest = content.ptr[taken:content.len]
                self.rest_at = 0
            return self.count()
        if self.decoder is not None:
            self.decoder.begin()
        self.unpack(view_bytes(content))
        return self.go_on()

    cdef int unpack(self, bytes plain) except -1:
        """Remove the codings of what came; of nothing: of more that lies in the decoder."""
        if self.decoder is not None:
            plain = self.decoder.pull(plain, DECODED_AT_A_TIME)
            self.error = self.decoder.error
        if self.text is not None:
            plain = self.text.text_decoded(PyBytes_AS_STRING(plain), PyBytes_GET_SIZE(plain))
            if self.text.is_wrong:
                self.error = "it is no base64"
        if plain:
            self.rest = plain
            self.rest_at = 0
        return 0

    cdef int finish(self) except -1:
        self.has_all = True
        return self.go_on()

    cdef int go_on(self) except -1:
        # a reference of our own: a hook that is told of a frame may end it all
        cdef bytes rest
        cdef Py_ssize_t taken, size
        while True:
            if self.rest is None and self.has_packed() and self.has_room():
                self.unpack(b"")
            rest = self.rest
            if rest is None or not self.has_room():
                break
            size = PyBytes_GET_SIZE(rest) - self.rest_at
            taken = self.first.feed(PyBytes_AS_STRING(rest) + self.rest_at, size)
            if taken == size:
                self.rest = None
                continue
            self.rest_at += taken
            if taken == 0 or self.first.is_waiting():
                break
        if self.has_all and not (self.is_told or self.is_closed or self.is_busy()) and self.stopped() is None:
            self.finish_codings()
            if self.error is None:
                self.is_told = True
                self.first.end()
        return self.count()

    cdef int finish_codings(self) except -1:
        if self.decoder is not None and self.error is None:
            self.decoder.finish()
            self.error = self.decoder.error
        if self.text is not None and self.text.digits and self.error is None:
            self.error = "its base64 is cut"
        return 0

    cdef bint has_packed(self) noexcept:
        return (self.decoder is not None and self.error is None and not self.is_closed and self.decoder.has_more()
                and not self.first.is_waiting() and self.stopped() is None)

    cdef bint has_room(self) noexcept:
        """Whether more may be given to the other side: what it does not take is not unpacked."""
        return self.decoder is None or (self.last.sink.room() > 0 and not self.last.sink.is_write_paused())

    cdef int begin_turn(self) except -1:
        cdef ContentStage stage = self.first
        while stage is not None:
            stage.begin_turn()
            stage = stage.next
        return 0

    cdef bint is_busy(self) noexcept:
        return self.rest is not None or self.first.is_waiting() or (self.decoder is not None and self.decoder.has_more())

    cdef bint is_waiting(self) noexcept:
        return self.first.is_waiting()

    cdef bint has_left(self) noexcept:
        return self.last.has_ended

    cdef ContentStage stopped(self):
        cdef ContentStage stage = self.first
        while stage is not None and not stage.ending:
            stage = stage.next
        return stage

    cdef bytes trailers(self):
        if self.filter is None or type(self.filter.framer) is not GrpcFramer:
            return None
        return (<GrpcFramer>self.filter.framer).trailers

    cdef int close(self) except -1:
        cdef ContentStage stage = self.first
        self.is_closed = True
        self.rest = None
        while stage is not None:
            stage.close()
            stage = stage.next
        return self.count()

    cdef Py_ssize_t held(self) noexcept:
        cdef Py_ssize_t total = 0 if self.rest is None else PyBytes_GET_SIZE(self.rest)
        cdef ContentStage stage = self.first
        while stage is not None:
            total += stage.held()
            stage = stage.next
        return total

    cdef int count(self) except -1:
        cdef Py_ssize_t before = self.counted
        # the exchange has given back all that it held when it ended
        self.counted = 0 if self.is_closed else self.held()
        if self.counted > before:
            return self.share.charge(self.counted - before)
        return self.share.refund(before - self.counted) if self.counted < before else 0


cdef StagedContent new_staged_content(Settings settings, BudgetShare share, Head head):
    cdef StagedContent staged = StagedContent.__new__(StagedContent)
    staged.settings = settings
    staged.share = share
    staged.decoder = decoder_for(content_encoding_of(head), settings.body_limit, True)
    if staged.decoder is not None:
        # of a coding that is not known
        staged.error = staged.decoder.error
    return staged
