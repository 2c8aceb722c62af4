# What is seen of a WebSocket on its way: the messages of one direction. A tap passes on what it has read, as it came; so what breaks the
# rules stays here. It calls no hook.

from libc.stdint cimport int64_t, uint64_t

from soth_mitm._dataplane.exchange.budget_share cimport BudgetShare
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport Stream
from soth_mitm._dataplane.memory.view cimport View
from soth_mitm._dataplane.websocket.handshake cimport Agreement
from soth_mitm._dataplane.websocket.message_reader cimport MessageReader


cdef class MessageTap:
    cdef Settings settings
    cdef BudgetShare share
    cdef MessageReader reader          # None: nothing more is shown
    cdef list found                    # StreamChunks that were read and not taken yet
    cdef bytes rest                    # octets that have not passed: a head that is not whole, or what a turn was too short for
    cdef Py_ssize_t ahead              # how many of them were read: of a frame that is not judged yet
    cdef bint is_behind                # a turn was too short: take_turn() is to follow, and pass_on() only adds to the rest
    cdef bint is_last                  # there will be no further turn
    cdef str direction
    cdef int64_t sequence              # of the next message that the handler is shown
    cdef Py_ssize_t held               # octets that the tap holds, as the budget counts them

    cdef int violation                 # Violation, for which the WebSocket is to be closed; nothing more passes
    cdef bint ends_in_frame            # what was passed on ends within a frame
    cdef bint has_ignored              # octets behind the Close came

    cdef int pass_on(self, View content, Stream sink) except -1
    cdef int take_turn(self, Stream sink) except -1    # a turn of the loop begins: read on
    # Nothing more comes, or there is no time to wait for the handler: read and pass on what is left. What one turn cannot inflate does
    # not pass, unless violations do
    cdef int finish(self, Stream sink) except -1
    cdef int stop(self) except -1                      # nothing more is shown
    cdef bint takes_close(self) noexcept               # a Close of ours can follow what was passed on
    cdef int read(self, const char* p, Py_ssize_t n, Stream sink) except -1
    cdef Py_ssize_t passed_of(self, uint64_t begun, Py_ssize_t taken) noexcept
    cdef int add(self) except -1
    cdef int drop_ignored(self) except -1              # octets behind the Close
    cdef bint goes_on(self) except -1                  # behind a violation
    cdef int count(self) except -1


cdef MessageTap new_message_tap(Settings settings, BudgetShare share, bint from_client, const Agreement* agreement)
