# One direction of a WebSocket whose messages are decided about: each is held until filter_stream_chunk has said what becomes of it.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.budget_share cimport BudgetShare
from soth_mitm._dataplane.exchange.callbacks cimport ExchangeCallbacks
from soth_mitm._dataplane.exchange.chunk_judge cimport ChunkJudge
from soth_mitm._dataplane.exchange.credentials cimport MessageTerms
from soth_mitm._dataplane.exchange.message_tap cimport MessageTap
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport Stream
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.websocket.handshake cimport Agreement
from soth_mitm._dataplane.websocket.windows cimport Windows


# What becomes of the octets of the message that is being read
cdef enum HoldState:
    HOLD_ALL = 0               # they are kept
    HOLD_PASS                  # it was decided before it was complete: they pass,
    HOLD_DROP                  # or go nowhere


cdef class MessageFilter(MessageTap):
    cdef ChunkJudge judge
    cdef ExchangeCallbacks asker       # is told when the call under way has returned
    cdef int kinds                     # FrameBits of the messages that the handler is asked about
    cdef MessageTerms terms            # what credentials are looked for in the messages; None: in none
    cdef Windows windows               # None: nothing of this direction is compressed
    cdef bytearray kept                # octets that were read and have not passed: of the message, then perhaps of a ping or pong
    cdef int state                     # HoldState
    cdef Deadline patience             # while a message is not complete; None: not needed yet
    cdef Stream sink
    cdef int64_t asked                 # messages that were asked about

    # the message that is decided about
    cdef bytes came                    # as it came,
    cdef bytes payload                 # and as the handler is shown it: without values of credentials
    cdef int opcode
    cdef bint is_whole
    cdef bint is_packed                # it came compressed
    cdef Py_ssize_t size               # of `kept`: its octets

    cdef int take(self, int event) except -1
    cdef int decide(self) except -1
    cdef int apply(self, int verdict) except -1
    cdef int pass_message(self) except -1
    cdef int send_own(self, bytes payload, bytes left) except -1      # one that is shown as `payload` leaves as `left`
    cdef int redact_close(self) except -1
    cdef int replace_message(self) except -1
    cdef str objection(self)           # to the payloads that are to replace the message; None: there is none
    cdef int end_message(self) except -1
    cdef int end(self, int code, bytes reason, object error) except -1
    cdef int refuse(self, int violation) except -1
    cdef int await_more(self) except -1        # no event lies here any more
    cdef Py_ssize_t most_kept(self) noexcept   # of a message that is not complete
    cdef int show_beginning(self) except -1    # of the message: the rest is not waited for
    cdef bint is_asked_about(self, int opcode) noexcept
    cdef bint is_refused(self) noexcept   # what it is asked about cannot be shown as the configuration wants it
    cdef bint must_recode(self) noexcept       # the message that is decided about has to leave in another form
    cdef bint overtakes(self, const char* p, Py_ssize_t n) noexcept    # a ping or pong comes next
    cdef int set_patience(self) except -1

    # the octets in `kept`
    cdef int keep(self, const char* p, Py_ssize_t n) except -1
    cdef int send_kept(self, Py_ssize_t begin, Py_ssize_t count) except -1
    cdef int cut_kept(self, Py_ssize_t begin, Py_ssize_t count) except -1
    cdef int send_frame(self, bytes frame) except -1
    cdef Py_ssize_t control_size(self) noexcept        # at its end: those of a control frame that is not complete


# `asks`: the handler is asked about messages of the kinds that it filters
cdef MessageFilter new_message_filter(
    Settings settings, BudgetShare share, bint from_client, const Agreement* agreement, bint asks, MessageTerms terms)
