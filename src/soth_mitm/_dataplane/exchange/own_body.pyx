"""A body that the handler gave, of a request or of a response: bytes, or what an async iterable yields.

An iterable is driven by a task of its own, in the context of the hook that gave it. The next item is
asked for when the peer has taken the one before. Whatever happens, the iterable is closed: at its
end, at a failure, or when its peer has left.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.callbacks cimport ExchangeCallbacks
from soth_mitm._dataplane.http.hooks cimport Hooks
from soth_mitm._dataplane.http.settings cimport Settings
from soth_mitm._dataplane.http.stream cimport ANY_LENGTH
from soth_mitm._dataplane.memory.deadline cimport Deadline
from soth_mitm._dataplane.memory.ledger cimport LEDGER_HOOK, note
from soth_mitm._dataplane.memory.view cimport View, view_of
from soth_mitm._dataplane.memory.waiter cimport Waiter

# What it is called in logs, and among what the proxy's end waits for
NAME = "on_request (the body that it gave)"


cdef enum OwnBodyStage:
    STAGE_ITEM = 1         # no item: the body is cut
    STAGE_CLOSE            # the iterable does not close: it is left alone


@cython.final
cdef class OwnBody(Waiter):
    """A body that the handler gave."""

    cdef bint has_more(self) noexcept:
        return self.sent < len(self.piece)

    cdef int next_piece(self, Py_ssize_t most, View* piece) except -1:
        cdef Py_ssize_t count = min(most, len(self.piece) - self.sent)
        piece[0] = view_of(PyBytes_AS_STRING(self.piece) + self.sent, count)
        self.sent += count
        self.total += count
        return 0

    cdef int64_t length(self) noexcept:
        return len(self.piece) if self.source is None else <int64_t>ANY_LENGTH

    cdef bint can_repeat(self) noexcept:
        return self.source is None

    cdef int rewind(self) except -1:
        if self.source is None:
            self.sent = 0
            self.total = 0
        return 0

    cdef int hold(self, bytes item) except -1:
        self.piece = item
        self.sent = 0
        self.settings.arena.budget.give(self.held)
        self.held = len(item)
        self.settings.arena.budget.take(self.held)
        return 0

    cdef int forget_sent(self) except -1:
        return 0 if self.source is None or self.has_more() else self.hold(b"")

    # ---- an iterable

    cdef int want(self) except -1:
        if self.source is None or self.has_ended or self.is_closed or self.error is not None:
            return 0
        if self.task is None:
            self.start()
        elif self.wish is None or self.wish.done():
            # it was asked for
            return 0
        else:
            self.wish.set_result(None)
        return self.deadline.set(self.settings.body_idle, STAGE_ITEM)

    cdef int start(self) except -1:
        cdef Hooks hooks = self.settings.hooks
        note(LEDGER_HOOK, 1)
        self.task = hooks.tasks.make(self.drive(), hooks.loop, self.context)
        hooks.suspended[self.task] = NAME
        self.task.add_done_callback(self.ended)
        return 0

    async def drive(self):
        """Take items, each when it is wanted, then close the iterable. Run by its task."""
        iterator = self.source
        is_exhausted = False
        self.is_begun = True
        try:
            if not self.is_closed:
                iterator = aiter(self.source)
            while not self.is_closed and self.error is None:
                item = await anext(iterator)
                if type(item) is not bytes:
                    raise TypeError(f"an item of a body is bytes, not {type(item).__name__}")
                if item and not self.is_closed and self.error is None:
                    self.take(item)
                    await self.wish
        except StopAsyncIteration:
            is_exhausted = True
            self.has_ended = not self.is_closed and self.error is None
            self.tell()
        except BaseException as error:
            # what is no Exception goes to the owner of the proxy; raised from here it would end the loop
            self.fail(error)
        self.deadline.clear()
        close = getattr(iterator, "aclose", None)
        if is_exhausted or close is None:
            return
        self.deadline.set(self.settings.own_body_close, STAGE_CLOSE)
        try:
            await close()
        except BaseException as error:
            if self.owner is not None:
                self.report(error)

    cdef int take(self, bytes item) except -1:
        self.deadline.clear()
        self.hold(item)
        self.wish = self.settings.hooks.loop.create_future()
        return self.tell()

    cdef int tell(self) except -1:
        if not self.is_telling and not self.is_closed:
            self.is_telling = True
            # neither inside its task nor with its context variables
            self.settings.hooks.loop.call_soon(self.tell_owner, context=self.settings.hooks.context)
        return 0

    def tell_owner(self):
        """There is an item, or an end. Called by the loop."""
        cdef ExchangeCallbacks owner = self.owner
        self.is_telling = False
        if owner is not None and not self.is_closed:
            owner.on_own_body(self)

    cdef int fail(self, object error) except -1:
        if self.is_closed or self.error is not None:
            # it was cancelled
            return 0 if isinstance(error, (Exception, self.settings.hooks.tasks.Cancelled)) else self.report(error)
        self.error = error
        self.report(error)
        return self.tell()

    cdef int report(self, object error) except -1:
        cdef Hooks hooks = self.settings.hooks
        if hooks.closed and isinstance(error, hooks.tasks.Cancelled):
            # at the proxy's end
            return 0
        hooks.counts.failures += 1
        hooks.report(NAME, error)
        return 0

    cdef int on_deadline(self, int stage) except -1:
        cdef Hooks hooks = self.settings.hooks
        if stage == STAGE_ITEM:
            error = TimeoutError(
                f"gave nothing for {self.settings.body_idle.seconds:g} s (timeouts.body_idle_ms)")
            self.error = error
            self.tell()
            self.interrupt()
        else:
            error = TimeoutError(
                f"did not close within {self.settings.own_body_close.seconds:g} s"
                " (handler.response_timeout_ms)")
            self.part()
            self.task.cancel()
        hooks.counts.timeouts += 1
        hooks.report(NAME, error)
        return 0

    cdef int interrupt(self) except -1:
        # a task that is cancelled before its first step never closes the iterable; it does so now in that step
        if self.is_begun:
            self.task.cancel()
        return 0

    cdef int close(self) except -1:
        if self.is_closed:
            return 0
        self.is_closed = True
        self.hold(b"")
        if self.source is None:
            return 0
        if self.task is None:
            # never begun: an async generator has nothing to close then
            if not hasattr(self.source, "aclose"):
                return self.part()
            self.start()
        elif self.owner is None:
            return 0
        elif not self.has_ended and self.error is None:
            self.settings.counters.own_bodies_cancelled += 1
            self.interrupt()
        return self.deadline.set(self.settings.own_body_close, STAGE_CLOSE)

    def ended(self, task):
        """Its task is over. Called by the loop."""
        self.settings.hooks.suspended.pop(task, None)
        self.deadline.clear()
        self.part()

    cdef int part(self) except -1:
        cdef ExchangeCallbacks owner = self.owner
        if owner is None:
            return 0
        self.owner = None
        self.wish = None
        self.deadline.clear()
        if self.task is not None:
            note(LEDGER_HOOK, -1)
        return owner.on_own_body_closed(self)


cdef OwnBody new_own_stream(Settings settings, ExchangeCallbacks owner, tuple taken):
    cdef OwnBody body = OwnBody.__new__(OwnBody)
    body.settings = settings
    body.owner = owner
    body.source, body.context = taken
    body.piece = b""
    body.deadline = Deadline(body)
    return body


cdef OwnBody new_own_bytes(Settings settings, bytes content):
    cdef OwnBody body = OwnBody.__new__(OwnBody)
    body.settings = settings
    body.hold(content)
    body.has_ended = True
    return body


cdef tuple untaken_of(object decision):
    # of its class: a mock has whatever it is asked for
    take = getattr(type(decision), "_take_body", None)
    if take is None or decision._untaken is None:
        return None
    try:
        return take(decision)
    except ValueError:
        return None


cdef int close_untaken(Settings settings, object decision) except -1:
    cdef tuple taken = untaken_of(decision)
    return 0 if taken is None else new_own_stream(settings, ExchangeCallbacks(), taken).close()
