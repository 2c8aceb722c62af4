"""Handlers of every form, through the proxy: what they may do, and what becomes of a request when they fail."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable

import pytest

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest
from support.origin import Origin
from support.origin_answers import pattern
from support.recording import Recording
from support.running import ProxyFactory, Running
from support.wire_client import Answer

BLOCK = HandlerDecision.block(403, "blocked\n")
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


def ask(running: Running, origin: Origin, count: int = 1) -> list[Answer]:
    with running.secured(origin.port) as client:
        return [client.request("/bytes/7", f"localhost:{origin.port}", "POST", b"body") for _ in range(count)]


class Plain(InterceptHandler):
    def on_request(self, request: RawRequest) -> HandlerDecision:
        return BLOCK if request.headers.get("content-length") == "4" else HandlerDecision.ALLOW


class Coroutine(InterceptHandler):
    async def on_request(self, request: RawRequest) -> HandlerDecision:
        return BLOCK


class Duck:
    """No subclass: an object with the right method."""

    async def on_request(self, request: RawRequest) -> HandlerDecision:
        await asyncio.sleep(0)
        return BLOCK


class ReturnsFuture(InterceptHandler):
    def on_request(self, request: RawRequest) -> Awaitable[HandlerDecision]:
        future: asyncio.Future[HandlerDecision] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, BLOCK)
        return future


@pytest.mark.parametrize("handler", [Plain(), Coroutine(), Duck(), ReturnsFuture()], ids=lambda handler: type(handler).__name__)
def test_every_form_decides(proxy: ProxyFactory, origin: Origin, handler: object) -> None:
    assert [(answer.status, answer.text) for answer in ask(proxy(handler), origin, 3)] == [(403, "blocked\n")] * 3
    assert origin.requests == []


async def sleeps(request: RawRequest) -> HandlerDecision:
    for _ in range(3):
        await asyncio.sleep(0)
    return BLOCK


async def has_a_deadline_of_its_own(request: RawRequest) -> HandlerDecision:
    try:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
    except TimeoutError:
        return BLOCK
    return HandlerDecision.ALLOW


async def looks_at_its_task_first(request: RawRequest) -> HandlerDecision:
    task = asyncio.current_task()
    assert task is not None
    await asyncio.sleep(0)
    assert asyncio.current_task() is task
    return BLOCK


async def enters_a_timeout_without_suspending(request: RawRequest) -> HandlerDecision:
    async with asyncio.timeout(5):  # noqa: ASYNC100 -- that it finds a task to cancel is the point
        return BLOCK


async def keeps_its_context(request: RawRequest) -> HandlerDecision:
    assert VARIABLE.get() == "unset"
    VARIABLE.set(str(request.flow_id))
    await asyncio.sleep(0)
    assert VARIABLE.get() == str(request.flow_id)
    return BLOCK


async def sets_context_without_suspending(request: RawRequest) -> HandlerDecision:
    assert VARIABLE.get() == "unset"
    VARIABLE.set("set")
    return BLOCK


async def starts_tasks(request: RawRequest) -> HandlerDecision:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(sleeps(request)) for _ in range(3)]
    return tasks[2].result()


async def waits_for_a_thread(request: RawRequest) -> HandlerDecision:
    return await asyncio.to_thread(lambda: BLOCK)


async def waits_and_times_out(request: RawRequest) -> HandlerDecision:
    await asyncio.wait_for(asyncio.sleep(0), 5)
    return BLOCK


@pytest.mark.parametrize(
    "decide",
    [
        sleeps,
        has_a_deadline_of_its_own,
        looks_at_its_task_first,
        enters_a_timeout_without_suspending,
        keeps_its_context,
        sets_context_without_suspending,
        starts_tasks,
        waits_for_a_thread,
        waits_and_times_out,
    ],
    ids=lambda function: function.__name__,
)
def test_asyncio_works_in_hooks(proxy: ProxyFactory, origin: Origin, decide: Callable[[RawRequest], Awaitable[HandlerDecision]]) -> None:
    running = proxy(Recording(decide))
    assert [answer.status for answer in ask(running, origin, 3)] == [403] * 3
    metrics = running.metrics()
    assert (metrics.handler_panic_count, metrics.handler_timeout_count) == (0, 0)


def raises(request: RawRequest) -> HandlerDecision:
    raise RuntimeError("broken on purpose")


async def raises_later(request: RawRequest) -> HandlerDecision:
    await asyncio.sleep(0)
    raise RuntimeError("broken on purpose")


def returns_nonsense(request: RawRequest) -> HandlerDecision:
    return "ALLOW"  # type: ignore[return-value]


async def returns_nothing_later(request: RawRequest) -> HandlerDecision:
    await asyncio.sleep(0)
    return None  # type: ignore[return-value]


async def is_late(request: RawRequest) -> HandlerDecision:
    await asyncio.Event().wait()
    return BLOCK


FAILURES = [raises, raises_later, returns_nonsense, returns_nothing_later, is_late]


@pytest.mark.parametrize("policy", ["allow", "block"])
@pytest.mark.parametrize("decide", FAILURES, ids=lambda function: function.__name__)
def test_a_failure_is_answered_by_the_policy(
    proxy: ProxyFactory, origin: Origin, decide: Callable[[RawRequest], HandlerDecision], policy: str
) -> None:
    running = proxy(Recording(decide), **{"handler.failure_policy": policy, "handler.request_timeout_ms": 500})
    answers = ask(running, origin, 2)
    if decide in (returns_nonsense, returns_nothing_later):
        # what is no decision forwards nothing, whatever the policy is
        assert [answer.status for answer in answers] == [502] * 2 and "returned no decision" in answers[0].text
        assert origin.requests == []
    elif policy == "allow":
        assert [(answer.status, answer.body) for answer in answers] == [(200, pattern(7))] * 2
    else:
        assert [answer.status for answer in answers] == [502] * 2
        assert "handler.failure_policy" in answers[0].text
        assert origin.requests == []
    metrics = running.metrics()
    assert (metrics.handler_panic_count, metrics.handler_timeout_count) == ((0, 2) if decide is is_late else (2, 0))


@pytest.mark.parametrize("decide", [raises, raises_later], ids=lambda function: function.__name__)
def test_without_recovery_a_failure_cuts_the_connection_and_nothing_else(
    proxy: ProxyFactory, origin: Origin, decide: Callable[[RawRequest], HandlerDecision]
) -> None:
    handler = Recording(decide)
    running = proxy(handler, **{"handler.recover_from_panics": False})
    with pytest.raises((OSError, EOFError)):
        ask(running, origin)
    assert origin.requests == []
    handler.decide = None
    assert ask(running, origin)[0].status == 200
    running.wait_idle()
    assert len(handler.of("on_connection_close")) == 2


def test_failing_observers_change_nothing(proxy: ProxyFactory, origin: Origin) -> None:
    closed = threading.Event()

    class Failing(InterceptHandler):
        def on_connection_open(self, meta: object) -> None:
            raise RuntimeError("on purpose")

        async def on_response(self, response: object) -> None:
            raise RuntimeError("on purpose")

        async def on_stream_chunk(self, chunk: object) -> None:
            await asyncio.sleep(0)
            raise RuntimeError("on purpose")

        def on_stream_end(self, connection_id: object, flow_id: int) -> None:
            raise RuntimeError("on purpose")

        def on_connection_close(self, connection_id: object) -> None:
            closed.set()
            raise RuntimeError("on purpose")

    running = proxy(Failing())
    with running.secured(origin.port) as client:
        assert client.request("/bytes/7", f"localhost:{origin.port}").body == pattern(7)
        assert client.request("/sse/3/0", f"localhost:{origin.port}").body.count(b"data:") == 3
    assert closed.wait(10)
    running.wait_idle()
    # open, response, response at the stream's head, three chunks, its end, close
    assert running.metrics().handler_panic_count == 8


def test_hooks_of_connections_have_a_task_and_a_context_of_their_own(proxy: ProxyFactory, origin: Origin) -> None:
    class Watching(InterceptHandler):
        def __init__(self) -> None:
            self.seen: list[tuple[str, bool, str]] = []

        def note(self, name: str) -> None:
            self.seen.append((name, asyncio.current_task() is not None, VARIABLE.get()))
            VARIABLE.set(name)

        def on_connection_open(self, meta: object) -> None:
            self.note("open")

        def should_intercept_tls(self, host: str, process_info: object) -> bool:
            self.note("intercept")
            return True

        async def on_tls_failure(self, host: str, error: Exception) -> None:
            self.note("failure")

        def on_connection_close(self, connection_id: object) -> None:
            self.note("close")

    handler = Watching()
    running = proxy(handler)
    for _ in range(2):
        with running.tunnel(origin.port) as client:
            # a ClientHello that is none
            client.send(bytes.fromhex("160301000401000000"))
            assert client.read_exactly(5)[:1] == b"\x15"
        running.wait_idle()
    assert handler.seen == [(name, True, "unset") for name in ("open", "intercept", "failure", "close")] * 2


def test_an_unknown_process_is_none(proxy: ProxyFactory, origin: Origin) -> None:
    """An argument that is None is an argument: the hook is asked, and does not fail."""
    seen: list[object] = []

    class Asked(InterceptHandler):
        def should_intercept_tls(self, host: str, process_info: object) -> bool:
            seen.append(process_info)
            return True

    running = proxy(Asked(), **{"process_attribution.enabled": False})
    assert [answer.body for answer in ask(running, origin)] == [pattern(7)]
    assert seen == [None] and running.metrics().handler_panic_count == 0
