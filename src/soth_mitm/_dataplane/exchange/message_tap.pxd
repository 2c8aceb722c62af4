# One direction of a WebSocket whose messages are read. A tap passes on what it has read, as it came; so what breaks the rules stays here.
# Messages of the handler's own are put in between. It calls no hook. What decides about messages is a tap as well: message_filter.

from libc.stdint cimport int64_t, uint64_t

from soth_mitm._dataplane.exchange.budget_share cimport BudgetShare
from soth_mitm._dataplane.exchange.callbacks cimport ExchangeCallbacks, TunnelCallbacks
from soth_mitm._dataplane.exchange.flow_recording cimport FlowRecording
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport Stream
from soth_mitm._dataplane.memory.view cimport View
from soth_mitm._dataplane.memory.waiter cimport Waiter
from soth_mitm._dataplane.websocket.handshake cimport Agreement
from soth_mitm._dataplane.websocket.message_reader cimport MessageReader
from soth_mitm._dataplane.websocket.message_writer cimport MessageWriter


cdef enum:
    MOST_MESSAGES = 64         # that are shown in one turn of the loop
    MOST_INJECTIONS = 64       # that wait for the end of a message
    NO_CODE = 1005             # of a Close without one (RFC 6455 section 7.4.1)


# A message of the handler's own
cdef class Injection:
    cdef bytes payload
    cdef bint is_text
    cdef object sent                   # a future, done when it is in the write buffer; None: nobody waits for that


cdef class MessageTap(Waiter):
    cdef Settings settings
    cdef BudgetShare share
    cdef ExchangeCallbacks watcher     # while the tunnel runs
    cdef TunnelCallbacks tunnel
    cdef MessageReader reader          # None: nothing more is read
    cdef bint from_client
    cdef bint is_shown                 # to on_stream_chunk
    cdef list found                    # StreamChunks that have passed and were not taken yet
    cdef bytes rest                    # octets that have not passed: a head that is not whole, or what a turn was too short for
    cdef Py_ssize_t ahead              # how many of them were read: of a frame that is not judged yet
    cdef bint is_behind                # a turn was too short: take_turn() is to follow, and pass_on() only adds to the rest
    cdef bint is_waiting               # for a decision: the same, but tunnel.on_tap() is to follow first
    cdef bint is_last                  # there will be no further turn
    cdef str direction
    cdef int64_t sequence              # of the next message that the handler is shown
    cdef int64_t messages              # that have passed
    cdef Py_ssize_t held               # octets that the tap holds, as the budget counts them

    cdef FlowRecording recording       # what event sinks are told of it, or None

    cdef int violation                 # Violation, for which the WebSocket is to be closed; nothing more passes
    cdef int end_code                  # of the Close with which the handler ends the WebSocket, in the same way; 0: it does not
    cdef bytes end_reason
    cdef object end_error              # why the flow is aborted by its hook, or None

    cdef bint ends_in_frame            # what was passed on ends within a frame,
    cdef bint ends_in_message          # or within a message
    cdef bint has_closed               # or with the Close,
    cdef int close_code                # whose code this is; NO_CODE
    cdef bint has_ignored              # octets behind the Close came

    cdef MessageWriter writer
    cdef object injections             # deque of those that wait, or None
    cdef object surplus                  # the same, of those for which there is no room yet
    cdef Py_ssize_t injected           # octets of the first

    cdef int pass_on(self, View content, Stream sink) except -1
    cdef int take_turn(self, Stream sink) except -1    # a turn of the loop begins, or a decision has come: read on
    # Nothing more comes, or there is no time to wait for the handler: read and pass on what is left. What one turn cannot inflate does
    # not pass, unless violations do
    cdef int finish(self, Stream sink) except -1
    cdef int stop_deciding(self) except -1             # nothing more is put in or decided: a Close of ours is sent
    cdef int stop(self) except -1                      # nothing more is read at all
    cdef bint takes_close(self) noexcept               # a Close of ours can follow what was passed on
    cdef bint at_border(self) noexcept                 # a message of ours can
    cdef bint wants_pause(self) noexcept               # less is to be read from the source
    cdef bint is_holding(self) noexcept                # octets of a message
    # False: there is no room, and nobody waits for it
    cdef bint inject(self, Injection injection) except -1
    cdef int put_in(self, Stream sink) except -1       # messages of the handler's, if they can follow now

    cdef int inject_surplus(self) except -1               # those that found no room
    cdef int refuse_injections(self, str why) except -1

    cdef int read(self, const char* p, Py_ssize_t n, Stream sink) except -1
    cdef Py_ssize_t passed_of(self, uint64_t begun, Py_ssize_t taken) noexcept
    cdef int add(self) except -1                       # the reader's last event has passed
    cdef int count_message(self) except -1
    cdef int show(self, bytes payload, int opcode, bint truncated, bint replaced, bint injected) except -1
    cdef bint goes_on(self) except -1                  # behind a violation
    cdef int count_violation(self, int violation) except -1
    cdef int drop_ignored(self) except -1              # octets behind the Close
    # A message of ours or the handler's as it leaves; None: it may not, and a Close ends the WebSocket
    cdef bytes outgoing(self, bytes payload, int opcode)
    cdef bytes own_frame(self, int opcode, bytes payload, bint is_compressed)
    cdef int count(self) except -1
    cdef Py_ssize_t size_held(self) noexcept


cdef int open_tap(
    MessageTap tap, Settings settings, BudgetShare share, bint from_client, const Agreement* agreement, int when_long) except -1
cdef MessageTap new_message_tap(Settings settings, BudgetShare share, bint from_client, const Agreement* agreement)
