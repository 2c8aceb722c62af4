"""The handle of a proxy in a thread: every call of every method returns or raises, wherever it comes from and whatever ends meanwhile."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from soth_mitm import (
    HandlerDecision,
    InterceptHandler,
    MitmConfig,
    MitmProxyBuilder,
    RawRequest,
    ShutdownTimeoutError,
    ThreadedHandle,
    generate_ca,
)
from support.origin import Origin
from support.running import Running

# nothing here waits for the drain, which would take longer
DRAIN_SECONDS = 60.0
SOON_SECONDS = 20.0
ASKED = b"GET http://localhost:1/ HTTP/1.1\r\nHost: localhost:1\r\n\r\n"

CALLS: dict[str, Callable[[ThreadedHandle], object]] = {
    "metrics": lambda handle: handle.metrics(),
    "current_config": lambda handle: handle.current_config(),
    "tls_bypasses": lambda handle: handle.tls_bypasses(),
    "clear_tls_bypass": lambda handle: handle.clear_tls_bypass("localhost"),
    "reload": lambda handle: handle.reload(handle.current_config()),
    "rotate_ca": lambda handle: handle.rotate_ca(handle.ca),
    "client_environment": lambda handle: handle.client_environment({}),
    "shutdown": lambda handle: handle.shutdown(SOON_SECONDS),
}


class Calling(InterceptHandler):
    """Makes one call of the handle for each request, in a hook."""

    def __init__(self, call: Callable[[ThreadedHandle], object]) -> None:
        self._call = call
        self.handle: ThreadedHandle | None = None
        self.outcome: object = None

    def make_the_call(self) -> HandlerDecision:
        assert self.handle is not None
        try:
            self.outcome = self._call(self.handle)
        except RuntimeError as error:
            self.outcome = error
        return HandlerDecision.block(418, b"called")

    def on_request(self, request: RawRequest) -> Any:
        return self.make_the_call()


class CallingLater(Calling):
    """Does the same in a coroutine, which is a task by then."""

    async def on_request(self, request: RawRequest) -> HandlerDecision:
        await asyncio.sleep(0)
        return self.make_the_call()


class Hanging(InterceptHandler):
    """Says that it was asked, and does not answer."""

    def __init__(self, asked: threading.Event) -> None:
        self._asked = asked

    async def on_request(self, request: RawRequest) -> HandlerDecision:
        self._asked.set()
        await asyncio.sleep(DRAIN_SECONDS)
        return HandlerDecision.ALLOW


def ask(handle: ThreadedHandle) -> int:
    """Send a request and return the answer's status."""
    with Running(handle, None).client() as client:
        client.send(ASKED)
        return client.read_answer().status


def start(make_config: Callable[..., MitmConfig], handler: object | None = None, *listed: str, **more: Any) -> ThreadedHandle:
    config = make_config(listed or ("localhost:*",), **{"timeouts.drain_ms": int(DRAIN_SECONDS * 1000)})
    return MitmProxyBuilder(config, handler).build().start_in_thread(**more)


def in_time(work: Callable[[], object]) -> object:
    """Do `work` in a thread; return what came of it, or fail if it hangs."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(SOON_SECONDS)
    assert outcome, "the call hangs"
    return outcome[0]


@pytest.mark.parametrize("kind", [Calling, CallingLater])
@pytest.mark.parametrize("name", CALLS)
def test_calls_from_inside_a_hook(make_config: Callable[..., MitmConfig], name: str, kind: type[Any]) -> None:
    """It runs in the thread that would have to answer the call."""
    handler = kind(CALLS[name])
    handle = start(make_config, handler)
    handler.handle = handle
    assert ask(handle) == 418
    assert not isinstance(handler.outcome, RuntimeError), handler.outcome
    if name == "shutdown":
        assert in_time(handle.wait_closed) is None
    assert in_time(handle.shutdown) is None


def test_waiting_for_the_end_inside_a_hook_is_refused(make_config: Callable[..., MitmConfig]) -> None:
    handler = Calling(lambda handle: handle.wait_closed())
    with start(make_config, handler) as handle:
        handler.handle = handle
        assert ask(handle) == 418
    assert "inside a hook" in str(handler.outcome)


def test_hooks_of_two_proxies_that_call_each_other(make_config: Callable[..., MitmConfig]) -> None:
    """Each thread would wait for the other's; the one that comes last is told."""
    both_are_there = threading.Barrier(2)

    def call(handle: ThreadedHandle) -> object:
        both_are_there.wait(SOON_SECONDS)
        return handle.metrics()

    handlers = [Calling(call), Calling(call)]
    with start(make_config, handlers[0]) as one, start(make_config, handlers[1]) as two:
        handlers[0].handle, handlers[1].handle = two, one
        with Running(one, None).client() as first, Running(two, None).client() as second:
            for client in (first, second):
                client.send(ASKED)
            assert [client.read_answer().status for client in (first, second)] == [418, 418]
    refused = [handler.outcome for handler in handlers if isinstance(handler.outcome, RuntimeError)]
    assert refused and all("each would wait for the other" in str(error) for error in refused)


@pytest.mark.parametrize("turn", range(10))
def test_calls_while_it_shuts_down(make_config: Callable[..., MitmConfig], turn: int) -> None:
    """From many threads: each returns, or says that the proxy was shut down."""
    handle = start(make_config, InterceptHandler())
    begin = threading.Barrier(3 * len(CALLS))
    outcomes: list[tuple[str, object]] = []

    def call_again(name: str) -> None:
        begin.wait(SOON_SECONDS)
        for _ in range(20):
            try:
                CALLS[name](handle)
                outcomes.append((name, None))
            except Exception as error:
                outcomes.append((name, error))

    threads = [threading.Thread(target=call_again, args=(name,), daemon=True) for name in CALLS for _ in range(3)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + SOON_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads), [thread for thread in threads if thread.is_alive()]
    failed = {(name, str(error)) for name, error in outcomes if error is not None}
    changing = {"reload", "rotate_ca", "client_environment"}
    assert {name for name, _ in failed} <= changing, failed
    assert all("shut down" in text or "shutting down" in text for _, text in failed), failed
    assert handle.metrics().active_connections == 0


class TestLeavingTheBlock:
    """What is open then is no error of the block."""

    def test_a_quiet_tunnel_is_closed(
        self, make_config: Callable[..., MitmConfig], plain_origin: Origin, caplog: pytest.LogCaptureFixture
    ) -> None:
        began = time.monotonic()
        with start(make_config, None, "nothing.example:1") as handle:
            client = Running(handle, None).tunnel(plain_origin.port)
        assert time.monotonic() - began < DRAIN_SECONDS / 2
        assert client.read_to_end() == b""
        client.socket.close()
        assert caplog.records == []

    def test_the_timeout_is_to_be_chosen(self, make_config: Callable[..., MitmConfig], caplog: pytest.LogCaptureFixture) -> None:
        """A request is under way; with the default it would have a minute."""
        asked = threading.Event()

        began = time.monotonic()
        with caplog.at_level(logging.WARNING, "soth_mitm.proxy"), start(make_config, Hanging(asked), shutdown_timeout=0.1) as handle:
            client = Running(handle, None).client()
            client.send(ASKED)
            assert asked.wait(SOON_SECONDS)
        assert time.monotonic() - began < DRAIN_SECONDS / 2
        client.socket.close()
        assert "1 connection(s) were still open after 0.1 s" in caplog.text

    def test_a_later_call_shortens_the_drain(self, make_config: Callable[..., MitmConfig]) -> None:
        asked = threading.Event()
        handle = start(make_config, Hanging(asked))
        client = Running(handle, None).client()
        client.send(ASKED)
        assert asked.wait(SOON_SECONDS)
        first: list[object] = []
        waiting = threading.Thread(target=lambda: first.append(in_time(handle.shutdown)), daemon=True)
        waiting.start()
        with pytest.raises(ConnectionError):
            # then the first call has begun
            while True:
                Running(handle, None).client().close()
        second = in_time(lambda: handle.shutdown(0))
        waiting.join(SOON_SECONDS)
        assert not waiting.is_alive()
        assert [type(outcome) for outcome in (*first, second)] == [ShutdownTimeoutError, type(None)]
        client.socket.close()


@pytest.mark.anyio
async def test_a_hook_that_awaits_the_shutdown(make_config: Callable[..., MitmConfig]) -> None:
    """It waits for what waits for it, until the drain ends; everything ends then."""

    class Ending(InterceptHandler):
        handle: Any = None

        async def on_request(self, request: RawRequest) -> HandlerDecision:
            await self.handle.shutdown(0.1)
            return HandlerDecision.ALLOW

    handler = Ending()
    handler.handle = await MitmProxyBuilder(make_config(), handler).build().start()
    _, writer = await asyncio.open_connection("127.0.0.1", handler.handle.port)
    writer.write(ASKED)
    async with asyncio.timeout(SOON_SECONDS):
        await handler.handle.wait_closed()
    writer.close()


def test_a_new_ca_from_inside_a_hook_is_used(make_config: Callable[..., MitmConfig]) -> None:
    new = generate_ca()
    handler = Calling(lambda handle: handle.rotate_ca(new))
    with start(make_config, handler) as handle:
        handler.handle = handle
        assert ask(handle) == 418
        assert handle.ca.fingerprint == new.fingerprint
        assert handle.ca_certificate_path.read_bytes() == new.cert_pem
