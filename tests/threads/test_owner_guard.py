"""A connection belongs to the thread of its loop: every method that Python can call refuses any other."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from soth_mitm._dataplane.memory.buffer import Arena
from soth_mitm._dataplane.transport.awaitable_endpoint import AwaitableEndpoint
from soth_mitm._dataplane.transport.endpoint import Endpoint

CALLS: dict[str, Callable[[Arena, Endpoint, AwaitableEndpoint], object]] = {
    "Endpoint.close": lambda arena, endpoint, intake: endpoint.close(),
    "Endpoint.abort": lambda arena, endpoint, intake: endpoint.abort(),
    "Endpoint.write": lambda arena, endpoint, intake: endpoint.write(b"x"),
    "Endpoint.start_tls": lambda arena, endpoint, intake: endpoint.start_tls(None, True),  # type: ignore[arg-type]
    "AwaitableEndpoint.attach": lambda arena, endpoint, intake: intake.attach(endpoint),
    "AwaitableEndpoint.peek": lambda arena, endpoint, intake: intake.peek(),
    "AwaitableEndpoint.consume": lambda arena, endpoint, intake: intake.consume(0),
    "Arena.allow_buffer": lambda arena, endpoint, intake: arena.allow_buffer(1 << 20),
}


@pytest.mark.parametrize("name", CALLS)
def test_other_threads_are_refused(name: str) -> None:
    loop = asyncio.new_event_loop()
    arena = Arena()
    intake = AwaitableEndpoint(loop)
    endpoint = Endpoint(arena, intake)
    intake.attach(endpoint)
    caught: list[BaseException] = []

    def call() -> None:
        try:
            CALLS[name](arena, endpoint, intake)
        except RuntimeError as error:
            caught.append(error)

    other = threading.Thread(target=call)
    other.start()
    other.join()
    loop.close()
    assert len(caught) == 1
    assert "call_soon_threadsafe" in str(caught[0])


def test_the_owner_is_not_refused() -> None:
    loop = asyncio.new_event_loop()
    arena = Arena()
    intake = AwaitableEndpoint(loop)
    endpoint = Endpoint(arena, intake)
    intake.attach(endpoint)
    loop.close()
    assert arena.owner == threading.get_ident()
    assert intake.peek() == b""
