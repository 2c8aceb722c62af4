"""A filter of a stream between a source and a sink that a test holds in its hands."""

from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.budget_share cimport BudgetShare, new_budget_share
from soth_mitm._dataplane.exchange.callbacks cimport ExchangeCallbacks
from soth_mitm._dataplane.exchange.chunk_filter cimport ChunkFilter, new_chunk_filter
from soth_mitm._dataplane.exchange.staged_content cimport StagedContent, TextStage, new_staged_content
from soth_mitm._dataplane.http.messages cimport StreamChunk
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stages cimport ContentStage
from soth_mitm._dataplane.http.stream cimport Stream
from soth_mitm._dataplane.memory.view cimport view_of
from soth_mitm._dataplane.wire.framer cimport Framer
from soth_mitm._dataplane.wire.grpc cimport GrpcFramer
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.wire.streams cimport STREAM_GRPC_WEB, STREAM_GRPC_WEB_TEXT, framer_of, stream_of

ENDINGS = ("goes_on", "ends", "cuts", "aborts")


cdef class Sink(Stream):
    cdef bytearray out

    def __cinit__(self):
        self.out = bytearray()

    cdef int send_content(self, const char* data, Py_ssize_t length) except -1:
        self.out += data[:length]
        return 0


cdef class Owner(ExchangeCallbacks):
    cdef list shown
    cdef list lengths
    cdef Sink sink
    cdef int waits
    cdef object on_ready

    cdef bint on_chunk_found(self, StreamChunk chunk) except -1:
        chunk.flow_id = 7
        return True

    cdef int on_chunk_left(self, object stage, StreamChunk chunk) except -1:
        cdef ChunkFilter made = <ChunkFilter>stage
        chunk.sequence = made.shown
        made.shown += 1
        self.shown.append(chunk)
        self.lengths.append(len(self.sink.out))
        return 0

    cdef int on_stage_waits(self, object stage) except -1:
        self.waits += 1
        return 0

    cdef int on_stage_ready(self, object stage) except -1:
        self.waits -= 1
        self.on_ready()
        return 0


cdef class Upper(ContentStage):
    """A stage behind the filter, which writes in capitals and holds its last byte back."""

    cdef bytes rest

    def __cinit__(self):
        self.rest = b""

    cdef Py_ssize_t feed(self, const char* data, Py_ssize_t length) except -1:
        cdef bytes all_of_it = self.rest + data[:length].upper()
        self.rest = all_of_it[len(all_of_it) - 1:]
        self.next.feed(all_of_it, len(all_of_it) - len(self.rest))
        return length

    cdef int end(self) except -1:
        self.next.feed(self.rest, len(self.rest))
        self.rest = b""
        return self.next.end()

    cdef Py_ssize_t held(self) noexcept:
        return len(self.rest)


cdef class Filtered:
    """Content of one message on its way through `filter_stream_chunk` of the settings' hooks."""

    cdef StagedContent staged
    cdef BudgetShare share
    cdef Owner owner
    cdef Sink sink
    cdef Settings settings
    cdef bint has_finished

    def __init__(self, Settings settings not None, Head head not None, bint upper=False):
        cdef int stream = stream_of(head, None)
        cdef Framer framer = framer_of(stream, head, settings.body_limit)
        self.settings = settings
        self.sink = Sink()
        self.owner = Owner()
        self.owner.shown = []
        self.owner.lengths = []
        self.owner.sink = self.sink
        self.owner.on_ready = self.go_on
        self.share = new_budget_share(settings, self.owner)
        self.staged = new_staged_content(settings, self.share, head)
        if stream == STREAM_GRPC_WEB_TEXT:
            self.staged.text = <GrpcFramer>framer
            framer = framer_of(STREAM_GRPC_WEB, head, settings.body_limit)
        self.staged.filter = new_chunk_filter(settings, self.share, self.owner, framer, "to_client")
        self.staged.add(self.staged.filter)
        if self.staged.text is not None:
            self.staged.add(TextStage())
        if upper:
            self.staged.add(Upper())
        self.staged.send_to(self.sink)

    def feed(self, bytes data not None):
        """Feed what has come, in turns as the loop would give them. Returns what has left so far."""
        assert not self.staged.is_busy()
        self.staged.begin_turn()
        self.staged.feed(view_of(data, len(data)))
        return self.go_on()

    def go_on(self):
        while not self.staged.is_waiting() and self.staged.stopped() is None and self.staged.is_busy():
            self.staged.begin_turn()
            self.staged.go_on()
        if self.has_finished:
            self.staged.begin_turn()
            self.staged.finish()
        return bytes(self.sink.out)

    def finish(self):
        """No more comes. Returns what has left."""
        self.has_finished = True
        return self.go_on()

    def wait_too_long(self):
        """It has waited for memory until its time was over."""
        self.share.has_waited = True

    def close(self):
        self.staged.close()

    @property
    def out(self):
        return bytes(self.sink.out)

    @property
    def shown(self):
        return self.owner.shown

    @property
    def shown_behind(self):
        """How much had left when each was shown."""
        return self.owner.lengths

    @property
    def ending(self):
        cdef ContentStage stage = self.staged.stopped()
        return "goes_on" if stage is None else ENDINGS[<int>stage.ending]

    @property
    def error(self):
        cdef ContentStage stage = self.staged.stopped()
        return self.staged.error if stage is None else stage.error

    @property
    def is_waiting(self):
        return bool(self.staged.is_waiting())

    @property
    def waits(self):
        return self.owner.waits

    @property
    def has_left(self):
        return bool(self.staged.has_left())

    @property
    def counted(self):
        return self.staged.counted

    @property
    def trailers(self):
        return self.staged.trailers()
