# Calling the handler.
#
# A hook's coroutine is stepped once, right where it is needed. Most return at once: no task is made
# for them and no loop turn passes. The first step runs with an idle task that was made before, the
# *carrier*, as the current task, so that `asyncio.current_task()` and `asyncio.timeout()` work in
# it. A hook that suspends is taken over by the carrier, which drives it to its end; the next hook
# gets a new one.
#
# Why not `asyncio.Task(eager_start=True)`, which does the same: Python 3.11 does not have it. There
# a plain task would take its place, and every coroutine hook would wait for a turn of the loop.
# Measured in µs per call, one core, least of 15 rounds; a plain function takes 0.2:
#
#                                          Python 3.11          Python 3.12
#                                          uvloop   asyncio     uvloop   asyncio
#     returns at once   carrier               0.7       0.7        0.8       0.8
#                       eager task              -         -        0.9       1.0
#                       plain task            1.5       2.7        1.4       2.9
#     suspends once     carrier (deadline,
#                       answer included)      5.0       8.2        5.3       9.3
#                       eager task              -         -        2.2       3.8
#                       plain task            2.1       3.9        1.9       4.2
#
# A hook in a plain task always suspends, so on 3.11 it would cost the 5 µs of the second block.
# When 3.11 goes, so can the carrier.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.http.counters cimport Histogram
from soth_mitm._dataplane.memory.deadline cimport Deadline, DeadlineQueue
from soth_mitm._dataplane.memory.waiter cimport Waiter


cdef enum Outcome:
    HOOK_DONE = 0          # Hooks.result is what it returned
    HOOK_PENDING = 1       # it suspended; the waiter's on_hook_result() will be called, from a loop callback of its own
    HOOK_FAILED = 2        # it raised; counted and reported, and kept in Hooks.error


# What one hook came to
cdef class HookFigures:
    cdef readonly int64_t failures
    cdef readonly int64_t timeouts
    cdef readonly Histogram times          # of calls that are over, until the hook has returned, was late or was given up


# Shared by all configuration snapshots of a proxy
cdef class HookCounters:
    cdef readonly dict by_hook             # HookFigures by name, of those that were called
    cdef public int64_t calls
    cdef public int64_t failures           # exceptions that hooks raised
    cdef public int64_t timeouts           # hooks that overran their deadline
    cdef public double seconds             # spent inside hooks; of one that suspended, its first step


# One method of the handler, or rather: one that the handler overrides
cdef class Hook:
    cdef readonly object method
    cdef readonly str name
    cdef readonly DeadlineQueue deadline
    cdef readonly bint takes_two
    cdef HookFigures figures                   # made by its first call


cdef class Hooks:
    cdef readonly object loop
    cdef object tasks                      # what asyncio's task functions are called here: see the constructor
    cdef object enter                      # two of these, of which each hook needs both
    cdef object leave
    cdef readonly Hook on_connect
    cdef readonly Hook on_request          # None: not overridden, and so without any cost
    cdef readonly Hook on_response_head
    cdef readonly Hook on_response_body
    cdef readonly Hook on_response
    cdef readonly Hook filter_stream_chunk
    cdef readonly int filtered             # the kinds of frames that it is for: a bit for each, in the order of FrameKind; 0: none
    cdef readonly Hook on_stream_chunk
    cdef readonly Hook on_stream_end
    cdef readonly bint recover             # false: a failing hook aborts its flow
    cdef readonly bint block_on_failure    # failure_policy: what the failure of a hook that decides means
    cdef object report                     # report(hook name, exception): logs, and tells the proxy's owner of what is no Exception
    cdef object report_slow                # report_slow(hook name, seconds): logs
    cdef double slow_seconds               # handler.slow_ms: longer than this no hook should hold the loop
    cdef bint closed
    cdef dict suspended                    # the tasks of hooks that have not returned, with the hooks' names
    cdef object context                    # what each hook's context variables begin with
    cdef Carrier carrier                   # waits for the next hook, or None

    cdef readonly HookCounters counts

    cdef object result
    cdef object error
    cdef double took                       # seconds, of the call that was made last; of one that suspended, its first step
    cdef Suspended pending                 # the call that suspended last, for the one that made it

    cdef HookFigures figures_of(self, Hook hook)
    cdef int count_timeout(self, Hook hook) except -1
    # `second` None: the hook takes one argument
    cdef int run(self, Hook hook, object first, object second, Waiter waiter) except -1     # an Outcome
    cdef int step(self, Hook hook, object coroutine, Waiter waiter) except -1
    cdef int failed(self, Hook hook, object error) except -1
    cdef int misjudged(self, object answer) except -1      # on_request returned something that is no decision
    cdef int only_looks(self, Hook hook, object answer) except -1      # another hook returned something, perhaps a decision
    cdef int mistaken(self, Hook hook, str wanted, object answer) except -1     # a hook returned something else than `wanted`
    cdef bint cuts(self, object error) except -1           # whether a hook that failed so ends its flow, whatever failure_policy says
    cdef bint counts_as_failure(self, Suspended call, object error) except -1
    cdef int overran(self, Hook hook) except -1


# A hook that suspended: waits for its end or its deadline, whichever comes first
cdef class Suspended(Waiter):
    cdef Hooks hooks
    cdef Hook hook
    cdef Waiter waiter
    cdef Waiter late_waiter                # told of what it returns after its deadline
    cdef Deadline deadline
    cdef object task
    cdef object result
    cdef object error
    cdef double began
    cdef bint ended
    cdef bint is_given_up                  # it was cancelled, since its answer is not needed any more

    cdef int end(self, object result, object error) except -1
    cdef int abandon(self) except -1       # nobody waits for it any more
    # The waiter wants no answer. It is told when the hook, which is cancelled, has returned or is late
    cdef int give_up(self) except -1


# A call that the control plane waits for
cdef class Asked(Waiter):
    cdef readonly object future            # done when it is over; None: it was over at once
    cdef readonly object result
    cdef readonly object error
    cdef Suspended call                    # while it is not over


# The coroutine of a carrier task
cdef class Carrier:
    cdef object loop
    cdef object task
    cdef object is_cancelling      # of the task
    cdef object park               # the future it waits on while it has nothing to carry
    cdef object coroutine          # the hook that it adopted
    cdef object context            # the hook's context variables
    cdef object yielded            # what the hook's first step yielded, until the task sees it
    cdef bint has_yielded
    cdef Suspended call

    cdef int adopt(self, object coroutine, object context, object yielded, Suspended call) except -1
    cdef object advance(self, object step, object argument)
