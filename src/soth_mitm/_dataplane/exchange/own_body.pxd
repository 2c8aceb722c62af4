# A body that the handler gave, of a request or of a response: bytes, or what an async iterable yields.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.callbacks cimport ExchangeCallbacks
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.memory.view cimport View
from soth_mitm._dataplane.memory.waiter cimport Waiter


cdef class OwnBody(Waiter):
    cdef Settings settings
    cdef ExchangeCallbacks owner   # told of news; None: bytes, or it has told that the iterable is closed
    cdef object source             # the async iterable; None: the body is bytes
    cdef object context            # of the hook that gave it
    cdef object task               # that runs drive(); None: nothing was asked for yet
    cdef object wish               # the future that the next item waits for
    cdef bytes piece               # all of it, or the item that is being sent
    cdef Py_ssize_t sent           # of `piece`
    cdef int64_t total             # of all items, since the last rewind()
    cdef Py_ssize_t held           # that the budget counts
    cdef bint is_begun             # drive() runs
    cdef bint has_ended            # nothing comes behind `piece`
    cdef bint is_closed            # nothing of it is wanted any more
    cdef bint is_telling           # the loop will call tell_owner()
    cdef object error              # why it ends before its end, or None
    cdef Deadline deadline

    cdef bint has_more(self) noexcept                  # there is something to send now
    # The next bytes, at most `most`; borrowed, until the next call
    cdef int next_piece(self, Py_ssize_t most, View* piece) except -1
    cdef int64_t length(self) noexcept                 # or ANY_LENGTH
    cdef bint can_repeat(self) noexcept
    cdef int rewind(self) except -1                    # it is to be sent once more
    cdef int forget_sent(self) except -1               # of the item nothing is used any more
    # Everything was sent: ask for the next item, if that was not done. owner.on_own_body() follows
    cdef int want(self) except -1
    # Nothing of it is wanted any more: close the iterable, within settings.own_body_close. owner.on_own_body_closed() follows
    cdef int close(self) except -1

    cdef int hold(self, bytes item) except -1
    cdef int start(self) except -1
    cdef int take(self, bytes item) except -1
    cdef int tell(self) except -1
    cdef int fail(self, object error) except -1
    cdef int report(self, object error) except -1
    cdef int part(self) except -1
    cdef int interrupt(self) except -1


# `taken` is what HandlerDecision._take_body() returned: the iterable and its context
cdef OwnBody new_own_stream(Settings settings, ExchangeCallbacks owner, tuple taken)
cdef OwnBody new_own_bytes(Settings settings, bytes content)

# The iterable and the context of a decision that is not applied. None: it has none, or another request took it
cdef tuple untaken_of(object decision)
# Close it, while nobody waits for that
cdef int close_untaken(Settings settings, object decision) except -1
