"""Calling the handler's methods: deadlines, failures, and coroutines that cost a task only when they suspend."""

from contextvars import copy_context

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from cpython.time cimport monotonic

from soth_mitm._dataplane.deadline cimport Deadline, DeadlineQueue
from soth_mitm._dataplane.ledger cimport LEDGER_HOOK, note
from soth_mitm._dataplane.party cimport Party


cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(object iterator, object argument, PyObject** result) except PYGEN_ERROR

    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1


@cython.final
cdef class HookCounts:
    """What all hooks of a proxy came to."""


@cython.final
cdef class Hook:
    """One overridden method of a handler: how to call it, what to call it in messages, how long it may take."""

    def __cinit__(self, method, str name, DeadlineQueue deadline not None):
        self.method = method
        self.name = name
        self.deadline = deadline


@cython.final
cdef class Hooks:
    """The hooks that run for each flow, of one handler on one loop.

    `tasks` offers ``make(coroutine, loop)``, ``enter(loop, task)``, ``leave(loop, task)`` and ``current(loop)`` of the loop's kind
    of tasks, and what cancels one as `Cancelled`. A hook given as None is not overridden. `report(name, exception)` is called for
    each failure; `block_on_failure` says what a failing `on_request` means; without `recover` a failing hook aborts its flow.
    """

    def __cinit__(self, loop, tasks, report, HookCounts counts not None, *, Hook on_request=None, Hook on_response=None,
                  Hook on_stream_chunk=None, Hook on_stream_end=None, bint recover=True, bint block_on_failure=False):
        self.loop = loop
        self.tasks = tasks
        self.report = report
        self.counts = counts
        self.on_request = on_request
        self.on_response = on_response
        self.on_stream_chunk = on_stream_chunk
        self.on_stream_end = on_stream_end
        self.recover = recover
        self.block_on_failure = block_on_failure
        self.context = copy_context()
        self.suspended = set()

    cdef int run(self, Hook hook, object first, object second, Party waiter) except -1:
        cdef int outcome
        cdef double began = monotonic(), took
        self.counts.calls += 1
        try:
            answer = hook.method(first) if second is None else hook.method(first, second)
            if hasattr(answer, "__await__"):
                outcome = self.step(hook, answer if hasattr(answer, "send") else answer.__await__(), waiter)
            else:
                self.result = answer
                outcome = HOOK_DONE
        except (Exception, self.tasks.Cancelled) as error:
            # whoever awaits what was cancelled fails like whoever awaits what failed
            outcome = self.failed(hook, error)
        took = monotonic() - began
        self.counts.seconds += took
        if took > hook.deadline.seconds and outcome == HOOK_DONE:
            # a plain function cannot be interrupted; its answer stands
            self.overran(hook)
        return outcome

    cdef int step(self, Hook hook, object coroutine, Party waiter) except -1:
        cdef PyObject* sent = NULL
        cdef PySendResult how
        cdef Carrier carrier = self.carrier
        cdef Suspended call
        if carrier is None:
            carrier = self.carrier = Carrier(self.loop, self.tasks)
        context = self.context.copy()
        outer = None
        try:
            self.tasks.enter(self.loop, carrier.task)
        except RuntimeError:
            outer = self.tasks.current(self.loop)
            self.tasks.leave(self.loop, outer)
            self.tasks.enter(self.loop, carrier.task)
        PyContext_Enter(context)
        try:
            how = PyIter_Send(coroutine, None, &sent)
        finally:
            PyContext_Exit(context)
            self.tasks.leave(self.loop, carrier.task)
            if outer is not None:
                self.tasks.enter(self.loop, outer)
            if carrier.task.cancelling():
                # the hook cancelled its own task, which therefore is of no use to the next hook
                self.carrier = None
        answer = <object>sent
        Py_DECREF(answer)
        if how == PYGEN_RETURN:
            self.result = answer
            return HOOK_DONE
        call = Suspended(self, hook, waiter, carrier.task)
        self.carrier = None
        self.suspended.add(carrier.task)
        carrier.task.add_done_callback(self.suspended.discard)
        carrier.adopt(coroutine, context, answer, call)
        return HOOK_PENDING

    cdef int failed(self, Hook hook, object error) except -1:
        self.counts.failures += 1
        self.error = error
        self.report(hook.name, error)
        return HOOK_FAILED

    cdef int misjudged(self, object answer) except -1:
        return self.failed(
            self.on_request, TypeError(f"must return a HandlerDecision (HandlerDecision.ALLOW or .block(...)), not {answer!r}"))

    cdef int overran(self, Hook hook) except -1:
        self.counts.timeouts += 1
        self.report(hook.name, TimeoutError(f"took longer than {hook.deadline.seconds:g} s"))
        return 0

    def close(self):
        """End the waiting carrier and the hooks that have not returned. Returns their tasks, to be awaited."""
        cdef Carrier carrier = self.carrier
        tasks = set(self.suspended)
        self.carrier = None
        if carrier is not None:
            tasks.add(carrier.task)
        for task in tasks:
            task.cancel()
        return tasks


@cython.final
cdef class Suspended(Party):
    """A hook that suspended."""

    def __cinit__(self, Hooks hooks, Hook hook, Party waiter, task):
        self.hooks = hooks
        self.hook = hook
        self.waiter = waiter
        self.task = task
        self.deadline = Deadline(self)
        self.deadline.set(hook.deadline, 0)
        note(LEDGER_HOOK, 1)

    cdef int late(self, int stage) except -1:
        cdef object error = TimeoutError(f"did not return within {self.hook.deadline.seconds:g} s")
        self.hooks.counts.timeouts += 1
        self.hooks.report(self.hook.name, error)
        self.task.cancel()
        return self.end(None, error)

    cdef int end(self, object result, object error) except -1:
        if self.ended:
            return 0
        self.ended = True
        self.deadline.clear()
        note(LEDGER_HOOK, -1)
        self.result = result
        self.error = error
        self.task = None
        # from a callback of its own: neither inside the hook's task nor with its context variables
        self.hooks.loop.call_soon(self.deliver, context=self.hooks.context)
        return 0

    def deliver(self):
        """Tell the waiter. Called by the loop."""
        cdef Party waiter = self.waiter
        self.waiter = None
        waiter.resolved(self.result, self.error)


@cython.final
cdef class Carrier:
    """A coroutine that waits for a hook to carry, then is that hook. Behaves like any coroutine towards its task."""

    def __cinit__(self, loop, tasks):
        self.loop = loop
        self.task = tasks.make(self, loop)

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
            self.task = None
            raise exception[0] if len(exception) == 1 else exception[1]
        self.has_yielded = False
        self.yielded = None
        if not hasattr(self.coroutine, "throw"):
            raise exception[0] if len(exception) == 1 else exception[1]
        return self.advance(self.coroutine.throw, exception[0] if len(exception) == 1 else exception[1])

    cdef object advance(self, object step, object argument):
        cdef Suspended call = self.call
        try:
            return self.context.run(step, argument)
        except StopIteration as stop:
            self.task = None
            call.end(stop.value, None)
            raise
        except Exception as error:
            self.task = None
            if not call.ended:
                call.hooks.failed(call.hook, error)
            call.end(None, error)
        except BaseException as error:
            # cancelled, or the interpreter is to end
            self.task = None
            call.end(None, error)
            raise
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
