# The content of one message on its way through stages, in place of being sent on as it came: its codings are removed, a filter and a
# redactor may follow, and a SendStage is the last.

from soth_mitm._dataplane.exchange.budget_share cimport BudgetShare
from soth_mitm._dataplane.exchange.chunk_filter cimport ChunkFilter
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stages cimport ContentStage, SendStage
from soth_mitm._dataplane.http.stream cimport Stream
from soth_mitm._dataplane.memory.view cimport View
from soth_mitm._dataplane.wire.decode cimport Decoder
from soth_mitm._dataplane.wire.grpc cimport GrpcFramer
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits


cdef class TextStage(ContentStage):
    pass


cdef class StagedContent:
    cdef Settings settings
    cdef BudgetShare share
    cdef Decoder decoder               # of the message's content codings; None: it has none
    cdef GrpcFramer text               # removes the base64 of gRPC-Web; None: it is none
    cdef ContentStage first
    cdef ContentStage last_added
    cdef SendStage last
    cdef ChunkFilter filter            # one of the stages, or None
    cdef bytes rest                    # content, decoded, that the first stage has not taken yet; None: it has it all
    cdef Py_ssize_t rest_at
    cdef bint has_all                  # finish() was called
    cdef bint is_told                  # and the first stage was told
    cdef bint is_closed                # close() was called: nothing is kept, and nothing counts
    cdef Py_ssize_t counted            # bytes, as the budget counts them
    cdef object error                  # why the codings cannot be removed, or None
    cdef object lost                   # why no more comes from the source, which ended in the middle of the message; or None

    # Behind those that were added before; then once, before the first content, send_to()
    cdef int add(self, ContentStage stage) except -1
    cdef int send_to(self, Stream sink) except -1
    # What the head may not say of content that other bytes may take the place of, and in another coding
    cdef HeadEdits head_edits(self, HeadEdits edits)    # beside others, or None

    # The message's content, in any pieces. Not while it is_busy()
    cdef int feed(self, View content) except -1
    cdef int finish(self) except -1                    # nothing more is fed
    cdef int begin_turn(self) except -1
    cdef int go_on(self) except -1                     # with what lies here, as far as it goes now, and as the other side takes it
    cdef int unpack(self, bytes plain) except -1
    cdef int finish_codings(self) except -1
    cdef bint has_packed(self) noexcept
    cdef bint has_room(self) noexcept
    cdef bint is_busy(self) noexcept                   # something lies here that the stages have not taken: no more is to be fed
    cdef bint is_waiting(self) noexcept                # for a hook
    cdef bint has_left(self) noexcept                  # all of the message was sent
    cdef ContentStage stopped(self)                    # the stage that ends the message, or None
    cdef bytes trailers(self)                          # that gRPC-Web has in its content, or None
    cdef int close(self) except -1                     # nothing of it is wanted any more
    cdef Py_ssize_t held(self) noexcept                # bytes
    cdef int count(self) except -1


cdef StagedContent new_staged_content(Settings settings, BudgetShare share, Head head)
