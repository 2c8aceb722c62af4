"""A coroutine that is run in the callbacks which it waits for: what wakes it, what it is told, and what becomes of what it raises."""

from __future__ import annotations

import asyncio
import gc
import ssl
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm._dataplane.memory.deadline import DeadlineQueue
from soth_mitm.proxy.client_reader import ClientGone, ClientReader
from soth_mitm.proxy.protocols import ClientEndpoint

Work = Callable[["Scene"], Coroutine[Any, Any, None]]


class Wire:
    """A transport that does what it is told, and loses its connection as soon as it is aborted."""

    def __init__(self) -> None:
        self.endpoint: ClientEndpoint | None = None
        self.aborted = False
        self.reading = True

    def write(self, data: bytes) -> None: ...
    def set_write_buffer_limits(self, high: int) -> None: ...
    def get_extra_info(self, name: str) -> Any:
        return self

    def setsockopt(self, *option: object) -> None: ...
    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Timers:
    """A loop's clock that stands until the test lets it pass."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timers:
        self.callbacks.append(callback)
        return self

    def cancel(self) -> None: ...


class Scene:
    """One client connection with its reader, and what its coroutine noted."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.reader = ClientReader(asyncio.get_running_loop())
        self.endpoint = ClientEndpoint(Arena(4096), self.reader)
        self.endpoint.connection_made(self.wire)
        self.reader.attach(self.endpoint)
        self.timers = Timers()
        # over at once
        self.queue = DeadlineQueue(self.timers.call_later, 0.0)
        self.notes: list[object] = []

    def receive(self, data: bytes) -> None:
        with memoryview(self.endpoint.get_buffer(-1)) as room:
            room[: len(data)] = data
        self.endpoint.buffer_updated(len(data))

    def pass_time(self) -> None:
        callbacks, self.timers.callbacks = self.timers.callbacks, []
        for callback in callbacks:
            callback()


def played(work: Work, act: Callable[[Scene], object]) -> list[object]:
    async def play() -> list[object]:
        scene = Scene()
        scene.reader.run(work(scene))
        act(scene)
        if not scene.endpoint.gone:
            scene.endpoint.connection_lost(None)
        scene.queue.close()
        return scene.notes

    return asyncio.run(play())


async def reads(scene: Scene) -> None:
    known = 0
    while True:
        data = await scene.reader.read_more(known)
        known = len(data)
        scene.notes.append(data)


async def reads_to_the_end(scene: Scene) -> None:
    try:
        await reads(scene)
    except ClientGone:
        scene.notes.append("over")


def test_it_runs_at_once_until_it_waits_and_in_each_callback() -> None:
    def act(scene: Scene) -> None:
        assert scene.notes == []
        for data, known in ((b"GE", [b"GE"]), (b"T", [b"GE", b"GET"])):
            scene.receive(data)
            assert scene.notes == known
        scene.endpoint.eof_received()

    assert played(reads_to_the_end, act)[-1] == "over"


def test_a_wait_in_which_nothing_came_goes_on() -> None:
    def act(scene: Scene) -> None:
        scene.reader.wake()
        scene.reader.wake("a reason")
        scene.receive(b"x")

    assert played(reads_to_the_end, act) == [b"x", "over"]


async def waits_within(scene: Scene) -> None:
    try:
        with scene.reader.within(scene.queue):
            await scene.reader.changed()
            scene.notes.append("changed")
            await scene.reader.changed()
    except TimeoutError:
        scene.notes.append("late")
    await scene.reader.changed()
    scene.notes.append("changed")


def test_time_is_counted_from_the_beginning_and_told_once() -> None:
    def act(scene: Scene) -> None:
        scene.receive(b"x")
        scene.pass_time()
        scene.pass_time()
        scene.receive(b"y")

    assert played(waits_within, act) == ["changed", "late", "changed"]


async def is_late_before_it_waits(scene: Scene) -> None:
    with pytest.raises(TimeoutError), scene.reader.within(scene.queue):
        scene.pass_time()
        await scene.reader.changed()
    scene.notes.append("late")


def test_a_wait_that_begins_too_late_ends_at_once() -> None:
    assert played(is_late_before_it_waits, lambda scene: None) == ["late"]


def test_what_it_raises_cuts_the_connection_and_is_not_kept() -> None:
    async def fails(scene: Scene) -> None:
        await scene.reader.changed()
        raise LookupError("a defect")

    def act(scene: Scene) -> None:
        with pytest.raises(LookupError):
            scene.receive(b"x")
        assert scene.wire.aborted
        scene.reader.wake()

    assert played(fails, act) == []


async def hangs_apart(scene: Scene) -> None:
    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            scene.notes.append("cancelled")

    await scene.reader.in_task(hang())


async def hangs(scene: Scene) -> None:
    while True:
        await scene.reader.changed()


@pytest.mark.parametrize(("work", "expected"), [(hangs, ["ended"]), (hangs_apart, ["cancelled", "ended"])])
def test_what_hangs_can_be_ended(work: Work, expected: list[object]) -> None:
    async def ended(scene: Scene) -> None:
        with pytest.raises(asyncio.CancelledError):
            await work(scene)
        scene.notes.append("ended")

    async def play() -> list[object]:
        scene = Scene()
        scene.reader.run(ended(scene))
        await asyncio.sleep(0)
        scene.reader.end()
        for _ in range(3):
            await asyncio.sleep(0)
        scene.endpoint.connection_lost(None)
        return scene.notes

    assert asyncio.run(play()) == expected


def test_what_is_awaited_apart_has_a_task_and_a_context_of_its_own() -> None:
    async def apart() -> str:
        task = asyncio.current_task()
        await asyncio.sleep(0)
        assert task is not None and asyncio.current_task() is task
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
        return "answer"

    async def fails() -> None:
        raise LookupError("apart")

    async def waits(scene: Scene) -> None:
        scene.notes.append(await scene.reader.in_task(apart()))
        with pytest.raises(LookupError, match="apart"):
            await scene.reader.in_task(fails())
        scene.notes.append("failed")
        done.set()

    done = asyncio.Event()

    async def play() -> list[object]:
        scene = Scene()
        scene.reader.run(waits(scene))
        scene.receive(b"what comes meanwhile does not end the wait")
        await done.wait()
        scene.endpoint.connection_lost(None)
        return scene.notes

    assert asyncio.run(play()) == ["answer", "failed"]


def test_a_handshake_begins_with_more_than_may_wait_for_it() -> None:
    """What a client sends behind its hello, before we have a certificate, is not to be read; then the handshake takes it all."""

    async def secures(scene: Scene) -> None:
        while scene.wire.reading:
            await scene.reader.changed()
        scene.notes.append("full")
        while scene.reader.tls_error is None:
            await scene.reader.changed()
        scene.notes.append(type(scene.reader.tls_error))

    def act(scene: Scene) -> None:
        while scene.wire.reading:
            scene.receive(b"not TLS at all " * 100)
        scene.reader.wake()
        scene.endpoint.start_tls(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), True)
        assert scene.wire.reading

    assert played(secures, act) == ["full", ssl.SSLError]


def test_what_ends_before_it_is_known_to_have_ended_can_be_ended() -> None:
    """Between the end of a task and the callback that tells of it."""

    async def returns() -> None: ...

    async def waits(scene: Scene) -> None:
        with pytest.raises(asyncio.CancelledError):
            await scene.reader.in_task(returns())
        scene.notes.append("ended")

    async def play() -> list[object]:
        scene = Scene()
        scene.reader.run(waits(scene))
        # the task's first step, and its last, was scheduled before this
        asyncio.get_running_loop().call_soon(scene.reader.end)
        for _ in range(3):
            await asyncio.sleep(0)
        scene.endpoint.connection_lost(None)
        return scene.notes

    assert asyncio.run(play()) == ["ended"]


def test_what_fails_as_its_client_leaves_is_nobodys_business() -> None:
    async def fails() -> None:
        raise LookupError("nobody waits for this")

    async def waits(scene: Scene) -> None:
        with pytest.raises(ClientGone):
            await scene.reader.wait_for(asyncio.get_running_loop().create_task(fails()), lambda: scene.reader.over)
        scene.notes.append("over")

    async def play() -> list[object]:
        loop, scene = asyncio.get_running_loop(), Scene()
        loop.set_exception_handler(lambda loop, context: scene.notes.append(context["message"]))
        scene.reader.run(waits(scene))
        # after the task's only step, before the callback that tells of its end
        loop.call_soon(scene.endpoint.connection_lost, None)
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()
        return scene.notes

    assert asyncio.run(play()) == ["over"]


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def test_a_finished_one_keeps_nothing_alive(no_collector: None) -> None:
    async def play() -> weakref.ref[ClientReader]:
        scene = Scene()
        scene.reader.run(reads_to_the_end(scene))
        scene.endpoint.connection_lost(None)
        return weakref.ref(scene.reader)

    assert asyncio.run(play())() is None
