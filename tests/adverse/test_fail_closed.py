"""Whatever goes wrong in a handler, nothing of the request is forwarded, and the owner of the proxy hears what it has to hear."""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from soth_mitm import HandlerDecision, InterceptHandler, MitmConfig, MitmProxyBuilder, RawRequest
from soth_mitm.errors import ShutdownTimeoutError
from soth_mitm.proxy.calls import HandlerReports
from support.certs import TestCA
from support.origin import Origin
from support.recording import Recording
from support.running import ProxyFactory, Running, configure
from support.wire_client import WireClient

ALLOWS = {"handler.failure_policy": "allow"}


class Stop(BaseException):
    """What no `except Exception` catches."""


def refused_arguments() -> list[Callable[[], HandlerDecision]]:
    """Calls of `block` that it refuses; in each the handler has decided to block."""
    block: Callable[..., HandlerDecision] = HandlerDecision.block
    return [
        lambda: block(403, headers={"X-Why": "from the request\r\nX-Forged: 1"}),
        lambda: block(99),
        lambda: block("403"),
        lambda: block(),
        lambda: block(403, reason="no"),
        lambda: block(403, 5),
        lambda: block(403, "\udcff"),
        lambda: block(204, "body"),
        lambda: block(403, headers=5),
        lambda: block(403, headers=[("a",)]),
        lambda: block(403, headers={"Content-Length": "5"}),
    ]


def ask(running: Running, origin: Origin) -> int:
    with running.tunnel(origin.port) as client:
        return client.request("/bytes/1", "localhost").status


@pytest.mark.parametrize("number", range(len(refused_arguments())))
def test_a_block_with_arguments_that_are_refused_blocks(proxy: ProxyFactory, plain_origin: Origin, number: int) -> None:
    make = refused_arguments()[number]

    async def later(request: RawRequest) -> HandlerDecision:
        await asyncio.sleep(0)
        return make()

    async def wrapped(request: RawRequest) -> HandlerDecision:
        try:
            return make()
        except (TypeError, ValueError) as error:
            raise RuntimeError("no answer could be made") from error

    async def grouped(request: RawRequest) -> HandlerDecision:
        async def work() -> None:
            make()

        async with asyncio.TaskGroup() as group:
            group.create_task(work())
        return HandlerDecision.ALLOW

    handler = Recording(lambda request: make())
    running = proxy(handler, **ALLOWS)
    assert ask(running, plain_origin) == 502
    for decide in (later, wrapped, grouped):
        handler.decide = decide
        assert ask(running, plain_origin) == 502
    assert plain_origin.requests == []
    metrics = running.metrics()
    assert (metrics.blocked_request_count, metrics.handler_panic_count, metrics.allowed_request_count) == (4, 4, 0)


def test_another_error_of_the_handler_is_still_answered_by_the_policy(proxy: ProxyFactory, plain_origin: Origin) -> None:
    def decide(request: RawRequest) -> HandlerDecision:
        raise ValueError("not from block()")

    assert ask(proxy(Recording(decide), **ALLOWS), plain_origin) == 200


@pytest.mark.parametrize("answer", [None, "block", True, 403, object(), HandlerDecision])
@pytest.mark.parametrize("suspends", [False, True])
def test_what_is_no_decision_forwards_nothing(proxy: ProxyFactory, plain_origin: Origin, answer: object, suspends: bool) -> None:
    async def decide(request: RawRequest) -> HandlerDecision:
        if suspends:
            await asyncio.sleep(0)
        return answer  # type: ignore[return-value]

    running = proxy(Recording(decide), **ALLOWS)
    assert ask(running, plain_origin) == 502
    assert plain_origin.requests == []
    assert running.metrics().handler_panic_count == 1


@pytest.mark.parametrize("suspends", [False, True])
def test_what_only_looks_like_a_decision_forwards_nothing(proxy: ProxyFactory, plain_origin: Origin, suspends: bool) -> None:
    """A mock says that it is of the class, and has whatever it is asked for."""

    async def decide(request: RawRequest) -> HandlerDecision:
        if suspends:
            await asyncio.sleep(0)
        decision: HandlerDecision = Mock(spec=HandlerDecision, is_block=False, status=0, body=b"", headers=())
        assert isinstance(decision, HandlerDecision)
        return decision

    running = proxy(Recording(decide), **ALLOWS)
    assert ask(running, plain_origin) == 502
    assert plain_origin.requests == []
    assert running.metrics().handler_panic_count == 1


@pytest.mark.parametrize("answer", [None, 0, 1, "no", []])
def test_what_is_no_bool_tunnels_nothing(proxy: ProxyFactory, plain_origin: Origin, answer: object) -> None:
    running = proxy(Recording(intercept=lambda host: answer), **ALLOWS)  # type: ignore[arg-type, return-value]
    with running.client() as client:
        assert client.connect(f"localhost:{plain_origin.port}").status == 403
    assert plain_origin.connections == []
    assert running.metrics().handler_panic_count == 1


def test_a_failure_blocks_unless_a_key_says_otherwise(proxy: ProxyFactory, plain_origin: Origin) -> None:
    def decide(request: RawRequest) -> HandlerDecision:
        raise LookupError("on purpose")

    assert ask(proxy(Recording(decide)), plain_origin) == 502
    assert plain_origin.requests == []


def test_monitor_mode_forwards_whatever_fails(proxy: ProxyFactory, plain_origin: Origin) -> None:
    def decide(request: RawRequest) -> HandlerDecision:
        raise LookupError("on purpose")

    running = proxy(Recording(decide), intercept_mode="monitor")
    assert ask(running, plain_origin) == 200

    def intercept(host: str) -> bool:
        raise LookupError("on purpose")

    running = proxy(Recording(intercept=intercept), intercept_mode="monitor")
    with running.client() as client:
        assert client.connect(f"localhost:{plain_origin.port}").status == 200


@pytest.mark.parametrize("suspends", [False, True])
def test_an_await_of_something_cancelled_is_a_failure_like_another(proxy: ProxyFactory, plain_origin: Origin, suspends: bool) -> None:
    def plainly(request: RawRequest) -> HandlerDecision:
        raise asyncio.CancelledError

    async def decide(request: RawRequest) -> HandlerDecision:
        future = asyncio.get_running_loop().create_future()
        if suspends:
            asyncio.get_running_loop().call_soon(future.cancel)
        else:
            future.cancel()
        await future
        return HandlerDecision.ALLOW

    handler = Recording(decide)
    running = proxy(handler)
    assert ask(running, plain_origin) == 502
    handler.decide = plainly
    assert ask(running, plain_origin) == 502
    assert (running.metrics().handler_panic_count, plain_origin.requests) == (2, [])


# --- exceptions that are no Exception


class Raising(InterceptHandler):
    """Raises `error` in the method `name`, after a turn of the loop if it `suspends`."""

    def __init__(self, name: str, error: BaseException, suspends: bool) -> None:
        async def later(*_: object) -> None:
            await asyncio.sleep(0)
            raise error

        def at_once(*_: object) -> None:
            raise error

        setattr(self, name, later if suspends else at_once)


ERRORS = [Stop("on purpose"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()]
METHODS = [
    "on_connection_open",
    "should_intercept_tls",
    "on_request",
    "on_response",
    "filter_stream_chunk",
    "on_stream_chunk",
    "on_stream_end",
    "on_connection_close",
]


def provoke(port: int, origin: Origin) -> None:
    """Let a client do what calls every hook, and see whether it gets its answer."""
    with WireClient(port) as client:
        try:
            if client.connect(f"localhost:{origin.port}").status == 200:
                client.request("/sse/1/0", "localhost")
        except (OSError, EOFError):
            pass


@pytest.mark.parametrize("suspends", [False, True])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("name", METHODS)
def test_the_owner_is_told(
    make_config: Callable[..., MitmConfig], plain_origin: Origin, name: str, error: BaseException, suspends: bool
) -> None:
    error = type(error)(*error.args)

    async def main() -> None:
        handle = await MitmProxyBuilder(make_config(**ALLOWS), Raising(name, error, suspends)).build().start()
        waiting = asyncio.create_task(told(handle.wait_closed()))
        await asyncio.to_thread(provoke, handle.port, plain_origin)
        assert await asyncio.wait_for(waiting, 10) is error
        assert handle.metrics().handler_panic_count >= 1
        await handle.shutdown(5)
        assert await told(handle.wait_closed()) is error

    asyncio.run(main())
    if name in ("on_connection_open", "should_intercept_tls", "on_request"):
        assert plain_origin.requests == []


async def told(waiting: object) -> BaseException | None:
    try:
        await waiting  # type: ignore[misc]
    except BaseException as error:
        return error
    return None


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_it_leaves_the_with_block(make_config: Callable[..., MitmConfig], plain_origin: Origin, error: BaseException) -> None:
    error = type(error)(*error.args)

    async def main() -> None:
        proxy = MitmProxyBuilder(make_config(), Raising("on_request", error, False)).build()
        caught: BaseException | None = None
        try:
            async with proxy as handle:
                await asyncio.to_thread(provoke, handle.port, plain_origin)
        except BaseException as raised:
            caught = raised
        assert caught is error

    asyncio.run(main())


def test_it_leaves_the_with_block_once(make_config: Callable[..., MitmConfig], plain_origin: Origin) -> None:
    async def main() -> None:
        async with MitmProxyBuilder(make_config(), Raising("on_request", Stop(), False)).build() as handle:
            waiting = asyncio.create_task(told(handle.wait_closed()))
            await asyncio.to_thread(provoke, handle.port, plain_origin)
            assert isinstance(await waiting, Stop)

    asyncio.run(main())


@pytest.mark.parametrize("error", [Stop, SystemExit, KeyboardInterrupt])
def test_run_forever_raises_it(tmp_path: Path, origin_ca: TestCA, plain_origin: Origin, error: type[BaseException]) -> None:
    started = threading.Event()
    ports: list[int] = []

    class Handler(InterceptHandler):
        def on_request(self, request: RawRequest) -> HandlerDecision:
            raise error("on purpose")

    proxy = MitmProxyBuilder(configure(tmp_path, origin_ca), Handler()).build()
    start = proxy.start

    async def noted() -> object:
        handle = await start()
        ports.append(handle.port)
        started.set()
        return handle

    proxy.start = noted  # type: ignore[method-assign, assignment]
    client = threading.Thread(target=lambda: started.wait(10) and provoke(ports[0], plain_origin))
    client.start()
    with pytest.raises(error, match="on purpose"):
        proxy.run_forever()
    client.join()


@pytest.mark.parametrize("error", [Stop, SystemExit, KeyboardInterrupt])
def test_the_thread_s_handle_raises_it(tmp_path: Path, origin_ca: TestCA, plain_origin: Origin, error: type[BaseException]) -> None:
    class Handler(InterceptHandler):
        def on_request(self, request: RawRequest) -> HandlerDecision:
            raise error("on purpose")

    handle = MitmProxyBuilder(configure(tmp_path, origin_ca), Handler()).build().start_in_thread()
    provoke(handle.port, plain_origin)
    with pytest.raises(error, match="on purpose"):
        handle.wait_closed()
    with (
        pytest.raises(error, match="on purpose"),
        MitmProxyBuilder(configure(tmp_path, origin_ca), Handler()).build().start_in_thread() as other,
    ):
        provoke(other.port, plain_origin)
    assert plain_origin.requests == []


# --- deadlines


class Stubborn(InterceptHandler):
    """Swallows being cancelled in one of its methods, and goes on for long."""

    def __init__(self, name: str) -> None:
        self.released = threading.Event()
        self.reached = threading.Event()

        async def hang(*_: object) -> None:
            self.reached.set()
            while not self.released.is_set():
                try:
                    await asyncio.sleep(0.05)
                except asyncio.CancelledError:
                    continue

        setattr(self, name, hang)


SHORT = {"handler.request_timeout_ms": 200, "handler.response_timeout_ms": 200}


@pytest.mark.parametrize(("name", "status"), [("on_connection_open", 200), ("should_intercept_tls", 403)])
def test_a_deadline_does_not_wait_for_who_swallows_it(proxy: ProxyFactory, plain_origin: Origin, name: str, status: int) -> None:
    handler = Stubborn(name)
    running = proxy(handler, **SHORT)
    began = time.monotonic()
    with running.client() as client:
        assert client.connect(f"localhost:{plain_origin.port}").status == status
    assert time.monotonic() - began < 2
    assert running.metrics().handler_timeout_count == 1
    handler.released.set()


@pytest.mark.parametrize("name", ["on_connection_open", "should_intercept_tls", "on_request", "on_response", "on_connection_close"])
def test_shutdown_does_not_wait_for_it(
    make_config: Callable[..., MitmConfig], plain_origin: Origin, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        handler = Stubborn(name)
        handle = await MitmProxyBuilder(make_config(), handler).build().start()
        client = asyncio.create_task(asyncio.to_thread(provoke, handle.port, plain_origin))
        await asyncio.to_thread(handler.reached.wait, 10)
        began = time.monotonic()
        try:
            await handle.shutdown(0.2)
        except ShutdownTimeoutError:
            pass
        assert time.monotonic() - began < 4
        await client
        handler.released.set()

    asyncio.run(main())
    assert f"{name} has not returned" in caplog.text


def test_a_tls_failure_hook_that_hangs_holds_no_connection(proxy: ProxyFactory, origin: Origin) -> None:
    handler = Stubborn("on_tls_failure")
    running = proxy(handler, **SHORT)
    with running.tunnel(origin.port) as client:
        # a record of the handshake that holds no hello
        client.send(b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00")
        began = time.monotonic()
        client.read_to_end()
        assert time.monotonic() - began < 2
    running.wait_idle()
    handler.released.set()


# --- hooks that hold the loop


class Slow(InterceptHandler):
    """Holds the loop in the first step of a coroutine, or in a later one."""

    def __init__(self, suspends: bool) -> None:
        self.suspends = suspends

    async def on_request(self, request: RawRequest) -> HandlerDecision:
        if self.suspends:
            await asyncio.sleep(0)
        until = time.perf_counter() + 0.03
        while time.perf_counter() < until:
            pass
        return HandlerDecision.ALLOW


@pytest.mark.parametrize("suspends", [False, True])
def test_a_hook_that_holds_the_loop_is_named_once(
    proxy: ProxyFactory, plain_origin: Origin, suspends: bool, caplog: pytest.LogCaptureFixture
) -> None:
    running = proxy(Slow(suspends), **{"handler.slow_ms": 20})
    assert [ask(running, plain_origin) for _ in range(3)] == [200] * 3
    (said,) = [record.getMessage() for record in caplog.records if "held the event loop" in record.getMessage()]
    assert said.startswith("Slow.on_request held the event loop for ") and "handler.slow_ms" in said


def test_a_hook_that_waits_holds_no_loop(proxy: ProxyFactory, plain_origin: Origin, caplog: pytest.LogCaptureFixture) -> None:
    async def decide(request: RawRequest) -> HandlerDecision:
        await asyncio.sleep(0.06)
        return HandlerDecision.ALLOW

    assert ask(proxy(Recording(decide), **{"handler.slow_ms": 50}), plain_origin) == 200
    assert "held the event loop" not in caplog.text


def test_a_slow_hook_is_named_again_after_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    reports = HandlerReports(lambda error: None)
    for now in (0.0, 59.9, 60.0, 61.0):
        reports.slow("Gate.on_request", 0.5, now)
    reports.slow("Gate.on_response", 0.5, 61.0)
    assert [record.getMessage().partition(" ")[0] for record in caplog.records] == ["Gate.on_request"] * 2 + ["Gate.on_response"]
