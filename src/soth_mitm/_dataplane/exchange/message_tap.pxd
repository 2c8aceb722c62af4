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
    cdef bytes rest                    # octets that are not read yet, nor sent: a head that is not whole, or what a turn was too short for
    cdef bint is_behind                # it was: take_turn() is to follow, and observe() only adds to the rest
    cdef str direction
    cdef int64_t sequence              # of the next message that the handler is shown
    cdef Py_ssize_t held               # octets that the tap holds, as the budget counts them

    cdef int violation                 # Violation, for which the WebSocket is to be closed; nothing more passes
    cdef bint ends_in_frame            # what was passed on ends within a frame: no frame of ours can follow

    cdef int pass_on(self, View content, Stream sink) except -1
    cdef int take_turn(self, Stream sink) except -1    # a turn of the loop begins: read on
    cdef int finish(self, Stream sink) except -1       # nothing more comes
    cdef int stop(self) except -1                      # nothing more is shown
    cdef bint is_in_frame(self) noexcept
    cdef int read(self, const char* p, Py_ssize_t n, Stream sink) except -1
    cdef Py_ssize_t before_violation(self, uint64_t begun, Py_ssize_t taken) noexcept
    cdef int add(self) except -1
    cdef bint goes_on(self) except -1                  # behind a violation
    cdef int count(self) except -1


cdef MessageTap new_message_tap(Settings settings, BudgetShare share, bint from_client, const Agreement* agreement)
