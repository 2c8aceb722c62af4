"""Which methods a handler brings itself."""

from typing import Any

import pytest

from soth_mitm.decision import HandlerDecision
from soth_mitm.handler import HOOKS, InterceptHandler, overridden_hooks


class Gate(InterceptHandler):
    async def on_request(self, request: object) -> HandlerDecision:
        return HandlerDecision.ALLOW

    def on_connection_close(self, connection_id: object) -> None:
        pass


class QuietGate(Gate):
    on_connection_close = InterceptHandler.on_connection_close


class Ducks:
    """No base class; one hook is a static method, one a callable object."""

    @staticmethod
    def should_intercept_tls(host: str, process_info: object) -> bool:
        return False

    on_response = print


def test_hooks_are_the_public_methods_of_the_base() -> None:
    assert set(HOOKS) == {name for name in vars(InterceptHandler) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("handler", "hooks"),
    [
        (InterceptHandler(), set()),
        (Gate(), {"on_request", "on_connection_close"}),
        (QuietGate(), {"on_request"}),
        (Ducks(), {"should_intercept_tls", "on_response"}),
        (object(), set()),
    ],
)
def test_overridden_hooks(handler: object, hooks: set[str]) -> None:
    assert overridden_hooks(handler) == hooks


def test_a_hook_on_the_object_itself_counts() -> None:
    handler = InterceptHandler()
    handler.on_stream_chunk = lambda chunk: None  # type: ignore[method-assign]
    assert overridden_hooks(handler) == {"on_stream_chunk"}


def test_a_class_in_place_of_an_object_is_refused() -> None:
    with pytest.raises(TypeError, match=r"the handler is the class Gate; pass an object of it: Gate\(\)"):
        overridden_hooks(Gate)


def test_a_hook_that_cannot_be_called_is_refused() -> None:
    handler: Any = InterceptHandler()
    handler.on_request = HandlerDecision.ALLOW
    with pytest.raises(TypeError, match=r"InterceptHandler\.on_request must be a method, got HandlerDecision\.ALLOW"):
        overridden_hooks(handler)


@pytest.mark.parametrize("name", HOOKS)
def test_each_hook_says_when_it_runs_its_deadline_and_what_a_failure_does(name: str) -> None:
    text = getattr(InterceptHandler, name).__doc__
    assert "When: " in text and "Deadline: `handler.re" in text and "Failure: " in text


def test_the_defaults_intercept_and_allow() -> None:
    handler: Any = InterceptHandler()
    assert handler.should_intercept_tls("localhost", None) is True
    assert handler.on_request(None) is HandlerDecision.ALLOW
    assert [getattr(handler, name)(None) for name in ("on_connection_open", "on_response", "on_stream_chunk", "on_connection_close")] == [
        None
    ] * 4
    assert handler.on_tls_failure("localhost", None) is handler.on_stream_end(None, 0) is None
