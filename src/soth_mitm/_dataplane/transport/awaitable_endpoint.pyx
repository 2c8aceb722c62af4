"""An endpoint that a coroutine of the control plane awaits, a few times in a connection's life."""


from soth_mitm._dataplane.memory.deadline cimport Deadline, DeadlineQueue
from soth_mitm._dataplane.transport.endpoint cimport Endpoint
from soth_mitm._dataplane.transport.callbacks cimport PAUSE_SETUP, EndpointCallbacks
from soth_mitm._dataplane.memory.view cimport view_bytes, view_of


# not final: InlineTask derives from it
cdef class AwaitableEndpoint(EndpointCallbacks):
    """What arrived on a connection that is not relayed yet. One coroutine at a time may wait."""

    def __cinit__(self, loop):
        self.loop = loop
        self.deadline = Deadline(self)

    def attach(self, Endpoint endpoint not None):
        """Become the callbacks of `endpoint`."""
        endpoint.arena.check_thread()
        self.endpoint = endpoint
        endpoint.callbacks = self
        if endpoint.has_told_eof() or endpoint.is_gone():
            # the callbacks before these got the event
            self.over = True

    def changed(self):
        """Return a future that is done when bytes, the peer's end, the handshake's end or the close
        has come.

        Inside of `within` it ends with TimeoutError when time is up.
        """
        self.waiter = self.loop.create_future()
        waiter = self.waiter
        if self.is_late:
            self.on_deadline(0)
        return waiter

    def within(self, DeadlineQueue queue not None):
        """Return a context in which waiting for `changed` ends after the queue's duration. One at a
        time.
        """
        self.endpoint.arena.check_thread()
        self.is_late = False
        self.deadline.set(queue, 0)
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.deadline.clear()
        self.is_late = False

    cdef int on_deadline(self, int stage) except -1:
        self.is_late = True
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(TimeoutError())
        self.waiter = None
        return 0

    def peek(self):
        """Return a copy of the read buffer."""
        self.endpoint.arena.check_thread()
        if self.endpoint.read_buffer.size() == 0:
            return b""
        return view_bytes(
            view_of(self.endpoint.read_buffer.data(), self.endpoint.read_buffer.size()))

    def consume(self, Py_ssize_t count):
        """Remove `count` bytes, which must be there: when the connection closes, the read buffer is
        empty.
        """
        self.endpoint.arena.check_thread()
        if not 0 <= count <= self.endpoint.read_buffer.size():
            size = self.endpoint.read_buffer.size()
            raise ValueError(f"{count} bytes cannot be taken out of {size}")
        self.endpoint.read_buffer.consume(count)

    cdef int notify(self) except -1:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
        self.waiter = None
        return 0

    cdef int on_data(self, object endpoint) except -1:
        # such a connection may wait for long, and there may be many
        (<Endpoint>endpoint).read_buffer.shrink()
        return self.notify()

    cdef int on_eof(self, object endpoint, bint clean) except -1:
        self.over = True
        return self.notify()

    cdef int on_closed(self, object endpoint, object error) except -1:
        self.over = True
        self.error = error
        return self.notify()

    cdef int on_tls_done(self, object endpoint, object error) except -1:
        self.is_secured = error is None
        self.tls_error = error
        self.notify()
        if error is None and self.endpoint.callbacks is self:
            # what follows belongs to the next callbacks
            self.endpoint.pause_reading(PAUSE_SETUP)
        return 0


# not final: proxy/ adds what the coroutine may wait for besides
cdef class InlineTask(AwaitableEndpoint):
    """An awaitable endpoint that runs the coroutine which waits for it, in the very callback that
    ends the wait.

    There is no task, no future and no turn of the loop in between. The coroutine must await nothing
    but `changed()` of this object. When it raises, the connection is aborted and the loop reports
    the exception.
    """

    def run(self, coroutine):
        """Run `coroutine` until it first waits, and again after each change."""
        self.coroutine = coroutine
        self.step()

    def changed(self):
        """Return what to await until an event has come (see `AwaitableEndpoint.changed`) or `wake`
        was called.

        Inside of `within` it raises TimeoutError when time is up.
        """
        return self

    def wake(self, reason=None):
        """Resume the coroutine, so that it checks what it waits for. May be the callback of a
        future.
        """
        self.notify()

    def cancel(self, error not None):
        """Raise `error` where the coroutine waits."""
        if self.is_suspended:
            self.raised = error
            self.step()

    def __await__(self):
        return self

    def __next__(self):
        if self.is_suspended:
            # the wait is over
            self.is_suspended = False
            error, self.raised = self.raised, None
            if error is not None:
                raise error
            raise StopIteration
        if self.is_late:
            raise TimeoutError()
        self.is_suspended = True

    cdef int on_deadline(self, int stage) except -1:
        self.is_late = True
        if self.is_suspended:
            self.raised = TimeoutError()
            self.step()
        return 0

    cdef int notify(self) except -1:
        if self.is_suspended:
            self.step()
        return 0

    cdef int step(self) except -1:
        cdef object coroutine = self.coroutine
        try:
            coroutine.send(None)
        except StopIteration:
            self.coroutine = None
        except BaseException as error:
            self.coroutine = None
            self.endpoint.abort(error)
            raise
        return 0
