"""Calling the handler's methods: deadlines, failures, and coroutines that cost a task only when they suspend."""

from contextvars import copy_context

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from cpython.time cimport monotonic

from soth_mitm._dataplane.http.counters cimport Histogram
from soth_mitm._dataplane.memory.deadline cimport Deadline, DeadlineQueue
from soth_mitm._dataplane.memory.ledger cimport LEDGER_HOOK, note
from soth_mitm._dataplane.memory.waiter cimport Waiter


cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(object iterator, object argument, PyObject** result) except PYGEN_ERROR

    bint PyCoro_CheckExact(object answer) noexcept

    object PyContext_Copy(object context)
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1


# In seconds
HOOK_EDGES = (1e-05, 2.5e-05, 5e-05, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


@cython.final
cdef class HookFigures:
    """What the calls of one hook came to."""

    def __cinit__(self):
        self.times = Histogram(HOOK_EDGES)


@cython.final
cdef class HookCounters:
    """What all hooks of a proxy came to."""

    def __cinit__(self):
        self.by_hook = {}


@cython.final
cdef class Hook:
    """One overridden method of a handler: how to call it, what to call it in messages, how long it may take.

    `takes_two`: it takes two arguments, of which the second one may be None.
    """

    def __cinit__(self, method, str name, DeadlineQueue deadline not None, bint takes_two=False):
        self.takes_two = takes_two
        self.method = method
        self.name = name
        self.deadline = deadline


@cython.final
cdef class Hooks:
    """The hooks that run for each flow, of one handler on one loop.

    `tasks` offers ``make(coroutine, loop)``, ``enter(loop, task)``, ``leave(loop, task)`` and ``current(loop)`` of the loop's kind
    of tasks, and what cancels one as `Cancelled`. A hook given as None is not overridden. `report(name, exception)` is called for
    each failure, `report_slow(name, seconds)` when a hook held the loop for longer than `slow_seconds`; `block_on_failure` says what a
    failing hook that decides means; without `recover` a failing hook aborts its flow. `filtered` has a bit for each kind of frame that
    `filter_stream_chunk` is for, in the order of `FrameKind`.
    """

    def __cinit__(self, loop, tasks, report, report_slow, HookCounters counts not None, *, Hook on_connect=None, Hook on_request=None,
                  Hook on_response_head=None, Hook on_response_body=None, Hook on_response=None, Hook filter_stream_chunk=None,
                  int filtered=0, Hook on_stream_chunk=None, Hook on_stream_end=None, double slow_seconds, bint recover=True,
                  bint block_on_failure=False):
        self.loop = loop
        self.tasks = tasks
        self.enter = getattr(tasks, "enter", None)
        self.leave = getattr(tasks, "leave", None)
        self.report = report
        self.report_slow = report_slow
        self.slow_seconds = slow_seconds
        self.counts = counts
        self.on_connect = on_connect
        self.on_request = on_request
        self.on_response_head = on_response_head
        self.on_response_body = on_response_body
        self.on_response = on_response
        self.filter_stream_chunk = filter_stream_chunk
        self.filtered = filtered if filter_stream_chunk is not None else 0
        self.on_stream_chunk = on_stream_chunk
        self.on_stream_end = on_stream_end
        self.recover = recover
        self.block_on_failure = block_on_failure
        self.context = copy_context()
        self.suspended = {}

    cdef HookFigures figures_of(self, Hook hook):
        if hook.figures is None:
            hook.figures = self.counts.by_hook.setdefault(hook.name, HookFigures())
        return hook.figures

    cdef int run(self, Hook hook, object first, object second, Waiter waiter) except -1:
        cdef int outcome
        cdef double began = monotonic(), took
        self.counts.calls += 1
        try:
            answer = hook.method(first, second) if hook.takes_two else hook.method(first)
            if PyCoro_CheckExact(answer):
                outcome = self.step(hook, answer, waiter)
            elif hasattr(answer, "__await__"):
                outcome = self.step(hook, answer if hasattr(answer, "send") else answer.__await__(), waiter)
            else:
                self.result = answer
                outcome = HOOK_DONE
        except BaseException as error:
            # an await of what was cancelled fails like an await of what failed; what is no Exception ends the flow (`cuts`), and goes
            # to the owner of the proxy by way of `report`: raised from here it would end the loop
            outcome = self.failed(hook, error)
        took = self.took = monotonic() - began
        self.counts.seconds += took
        if outcome == HOOK_PENDING:
            self.pending.began = began
        else:
            self.figures_of(hook).times.add(took)
        if took > self.slow_seconds:
            self.report_slow(hook.name, took)
        if took > hook.deadline.seconds and outcome == HOOK_DONE:
            # a plain function cannot be interrupted; its answer stands
            self.overran(hook)
        return outcome

    cdef int step(self, Hook hook, object coroutine, Waiter waiter) except -1:
        cdef PyObject* sent = NULL
        cdef PySendResult how
        cdef Carrier carrier = self.carrier
        cdef Suspended call
        if carrier is None:
            carrier = self.carrier = Carrier(self.loop, self.tasks)
        context = PyContext_Copy(self.context)
        outer = None
        try:
            self.enter(self.loop, carrier.task)
        except RuntimeError:
            # called from a task, as the hooks of a connection are
            outer = self.tasks.current(self.loop)
            self.leave(self.loop, outer)
            self.enter(self.loop, carrier.task)
        PyContext_Enter(context)
        try:
            how = PyIter_Send(coroutine, None, &sent)
        finally:
            PyContext_Exit(context)
            self.leave(self.loop, carrier.task)
            if outer is not None:
                self.enter(self.loop, outer)
            if carrier.is_cancelling():
                # the hook cancelled its own task, which therefore is of no use to the next hook
                self.carrier = None
        answer = <object>sent
        Py_DECREF(answer)
        if how == PYGEN_RETURN:
            self.result = answer
            return HOOK_DONE
        call = self.pending = Suspended(self, hook, waiter, carrier.task)
        self.carrier = None
        self.suspended[carrier.task] = hook.name
        carrier.task.add_done_callback(self.returned)
        carrier.adopt(coroutine, context, answer, call)
        return HOOK_PENDING

    cdef int failed(self, Hook hook, object error) except -1:
        cdef HookFigures figures = self.figures_of(hook)
        self.counts.failures += 1
        figures.failures += 1
        self.error = error
        self.report(hook.name, error)
        return HOOK_FAILED

    cdef int misjudged(self, object answer) except -1:
        return self.mistaken(self.on_request, "a HandlerDecision (HandlerDecision.ALLOW, .block(...), ...)", answer)

    cdef int mistaken(self, Hook hook, str wanted, object answer) except -1:
        # a repr that is not Python's own might raise
        shown = repr(answer) if type(answer) in (type(None), bool, int, str) else f"an object of the type {type(answer).__name__}"
        return self.failed(hook, TypeError(f"must return {wanted}, not {shown}"))

    cdef int only_looks(self, Hook hook, object answer) except -1:
        cdef str kind = type(answer).__name__
        if kind.endswith("Decision"):
            self.report(hook.name, UserWarning(
                f"returned a {kind}, which has no effect: {hook.name} only looks. on_request decides about requests, "
                "on_response_head about responses, filter_stream_chunk about what is in streams"))
        return 0

    cdef bint cuts(self, object error) except -1:
        return not self.recover or not isinstance(error, (Exception, self.tasks.Cancelled))

    cdef bint counts_as_failure(self, Suspended call, object error) except -1:
        # a hook that was late was counted so, and one that was cancelled at its flow's or the proxy's end did not fail
        if isinstance(error, (Exception, self.tasks.Cancelled)):
            return not call.ended and not ((self.closed or call.is_given_up) and isinstance(error, self.tasks.Cancelled))
        return True

    cdef int count_timeout(self, Hook hook) except -1:
        cdef HookFigures figures = self.figures_of(hook)
        self.counts.timeouts += 1
        figures.timeouts += 1
        return 0

    cdef int overran(self, Hook hook) except -1:
        self.count_timeout(hook)
        self.report(hook.name, TimeoutError(f"took longer than {hook.deadline.seconds:g} s"))
        return 0

    def ends_flow(self, error not None):
        """Tell whether a hook that failed with `error` ends its flow, whatever `handler.failure_policy` says."""
        return self.cuts(error)

    def mistook(self, Hook hook not None, str wanted not None, answer):
        """Count that a hook returned `answer`, which is not `wanted`; tell whether that ends its flow."""
        self.mistaken(hook, wanted, answer)
        return self.ends_flow(self.error)

    def returned(self, task):
        """A hook that had suspended has returned, or ended otherwise. Called by the loop."""
        self.suspended.pop(task, None)

    def close(self):
        """End the waiting carrier and the hooks that have not returned. Returns their tasks, to be awaited, with the names of the hooks."""
        cdef Carrier carrier = self.carrier
        tasks = dict(self.suspended)
        self.closed = True
        self.carrier = None
        if carrier is not None:
            tasks[carrier.task] = "no hook"
        for task in tasks:
            task.cancel()
        return tasks


@cython.final
cdef class Suspended(Waiter):
    """A hook that suspended."""

    def __cinit__(self, Hooks hooks, Hook hook, Waiter waiter, task):
        self.hooks = hooks
        self.hook = hook
        self.waiter = waiter
        self.task = task
        self.deadline = Deadline(self)
        self.deadline.set(hook.deadline, 0)
        note(LEDGER_HOOK, 1)

    cdef int on_deadline(self, int stage) except -1:
        cdef object error = TimeoutError(f"did not return within {self.hook.deadline.seconds:g} s")
        self.hooks.count_timeout(self.hook)
        self.hooks.report(self.hook.name, error)
        self.task.cancel()
        self.late_waiter = self.waiter
        return self.end(None, error)

    cdef int end(self, object result, object error) except -1:
        if self.ended:
            if self.late_waiter is not None:
                self.hooks.loop.call_soon(self.deliver_late, result, context=self.hooks.context)
            return 0
        self.ended = True
        self.deadline.clear()
        note(LEDGER_HOOK, -1)
        self.hooks.figures_of(self.hook).times.add(monotonic() - self.began)
        self.result = result
        self.error = error
        self.task = None
        if self.hooks.pending is self:
            # or what it ended in would be kept until the next one suspends
            self.hooks.pending = None
        # from a callback of its own: neither inside the hook's task nor with its context variables
        self.hooks.loop.call_soon(self.deliver, context=self.hooks.context)
        return 0

    cdef int abandon(self) except -1:
        if self.ended:
            return 0
        self.ended = True
        self.deadline.clear()
        note(LEDGER_HOOK, -1)
        self.hooks.figures_of(self.hook).times.add(monotonic() - self.began)
        self.waiter = None
        self.task.cancel()
        self.task = None
        return 0

    cdef int give_up(self) except -1:
        if not self.ended and not self.is_given_up:
            self.is_given_up = True
            self.task.cancel()
        return 0

    def deliver(self):
        """Tell the waiter. Called by the loop."""
        cdef Waiter waiter = self.waiter
        self.waiter = None
        waiter.on_hook_result(self.result, self.error)

    def deliver_late(self, result):
        """Tell the waiter what comes after the deadline; None: nothing. Called by the loop."""
        cdef Waiter waiter = self.late_waiter
        self.late_waiter = None
        if result is not None:
            waiter.on_late_result(result)


@cython.final
cdef class Asked(Waiter):
    """A call of a hook that a coroutine of the control plane waits for.

    It is over when `future` is None or done: the hook has returned `result`, or `error` is what it raised or that it was late. Nobody
    waits for a coroutine that goes on after its deadline. `second` is for hooks that take two.
    """

    def __cinit__(self, Hooks hooks not None, Hook hook not None, first, second=None):
        cdef int outcome = hooks.run(hook, first, second, self)
        if outcome == HOOK_PENDING:
            self.call = hooks.pending
            self.future = hooks.loop.create_future()
        elif outcome == HOOK_FAILED:
            self.error = hooks.error
        else:
            self.result = hooks.result
        hooks.pending = None
        hooks.result = None
        hooks.error = None

    def abandon(self):
        """Want the answer no more: the hook's task is cancelled. Harmless when it is over."""
        if self.call is not None:
            self.call.abandon()
            self.call = None

    cdef int on_hook_result(self, object result, object error) except -1:
        self.call = None
        self.result = result
        self.error = error
        if not self.future.done():
            self.future.set_result(None)
        return 0


@cython.final
cdef class Carrier:
    """A coroutine that waits for a hook to carry, then is that hook. Behaves like any coroutine towards its task."""

    def __cinit__(self, loop, tasks):
        self.loop = loop
        self.task = tasks.make(self, loop)
        self.is_cancelling = self.task.cancelling

    cdef int adopt(self, object coroutine, object context, object yielded, Suspended call) except -1:
        self.coroutine = coroutine
        self.context = context
        self.yielded = yielded
        self.has_yielded = True
        self.call = call
        if self.park is not None and not self.park.done():
            self.park.set_result(None)
        return 0

    def send(self, value):
        if self.coroutine is None:
            self.park = self.loop.create_future()
            self.park._asyncio_future_blocking = True
            return self.park
        if self.has_yielded:
            self.has_yielded = False
            yielded = self.yielded
            self.yielded = None
            return yielded
        return self.advance(self.coroutine.send, value)

    def throw(self, *exception):
        if self.coroutine is None:
            self.task = self.is_cancelling = None
            raise exception[0] if len(exception) == 1 else exception[1]
        self.has_yielded = False
        self.yielded = None
        if not hasattr(self.coroutine, "throw"):
            raise exception[0] if len(exception) == 1 else exception[1]
        return self.advance(self.coroutine.throw, exception[0] if len(exception) == 1 else exception[1])

    cdef object advance(self, object step, object argument):
        cdef Suspended call = self.call
        cdef double began = monotonic(), took
        try:
            return self.context.run(step, argument)
        except StopIteration as stop:
            self.task = self.is_cancelling = None
            call.end(stop.value, None)
            raise
        except BaseException as error:
            # raised from here, what is no Exception would end the loop: the owner of the proxy is told by way of `failed`
            self.task = self.is_cancelling = None
            if call.hooks.counts_as_failure(call, error):
                call.hooks.failed(call.hook, error)
            call.end(None, error)
        finally:
            took = monotonic() - began
            if took > call.hooks.slow_seconds:
                call.hooks.report_slow(call.hook.name, took)
        raise StopIteration(None)

    def close(self):
        if self.coroutine is not None and hasattr(self.coroutine, "close"):
            self.coroutine.close()

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)
