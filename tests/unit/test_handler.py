"""Which methods a handler brings itself."""

import re
from typing import Any

import pytest

from soth_mitm import ChunkDecision, FrameKind, MitmConfig, MitmProxyBuilder
from soth_mitm.decision import HandlerDecision
from soth_mitm.handler import HOOKS, OTHER_TOOLS, InterceptHandler, check_handler, filter_kinds, overridden_hooks


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
    assert set(HOOKS) == {name for name in vars(InterceptHandler) if not name.startswith("_")} - {"filter_kinds"}


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


class TooFew:
    def on_request(self) -> None: ...


class TooMany(InterceptHandler):
    def on_stream_end(self, connection_id: object, flow_id: int, more: int) -> None: ...  # type: ignore[override]


class Yields:
    async def on_request(self, request: object) -> Any:
        yield HandlerDecision.ALLOW


class YieldsAtOnce:
    def filter_stream_chunk(self, chunk: object) -> Any:
        yield ChunkDecision.PASS


class TakesAnything:
    def __init__(self) -> None:
        self.on_response = lambda *arguments: None

    def on_request(self, request: object, *, option: int = 3) -> None: ...

    def on_tls_failure(self, *arguments: object) -> None: ...


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        (TooFew(), r"TooFew\.on_request cannot be called with \(request\): too many positional arguments"),
        (TooMany(), r"TooMany\.on_stream_end cannot be called with \(connection_id, flow_id\): missing a required argument: 'more'"),
        (Yields(), r"Yields\.on_request has a `yield`"),
        (YieldsAtOnce(), r"YieldsAtOnce\.filter_stream_chunk has a `yield`"),
    ],
)
def test_a_hook_that_could_never_work_is_refused(handler: object, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        check_handler(handler)


def test_a_hook_may_take_more_than_it_is_given() -> None:
    check_handler(TakesAnything())
    check_handler(Ducks())


@pytest.mark.parametrize("name", HOOKS)
def test_each_hook_says_when_it_runs_its_deadline_and_what_a_failure_does(name: str) -> None:
    text = getattr(InterceptHandler, name).__doc__
    assert "When: " in text and "Deadline: `handler." in text and "Failure: " in text


def test_the_defaults_intercept_and_allow() -> None:
    handler: Any = InterceptHandler()
    assert handler.should_intercept_tls("localhost", None) is True
    assert handler.on_request(None) is HandlerDecision.ALLOW
    assert handler.filter_stream_chunk(None) is ChunkDecision.PASS
    assert [getattr(handler, name)(None) for name in ("on_connection_open", "on_response", "on_stream_chunk", "on_connection_close")] == [
        None
    ] * 4
    assert handler.on_tls_failure("localhost", None) is handler.on_stream_end(None, 0) is None


# --- what is filtered


def test_all_kinds_are_filtered_unless_the_handler_names_some() -> None:
    assert filter_kinds(InterceptHandler()) == filter_kinds(with_methods("on_request")) == frozenset()
    assert filter_kinds(with_methods("filter_stream_chunk")) == frozenset(FrameKind)
    handler: Any = with_methods("filter_stream_chunk", base=InterceptHandler)
    handler.filter_kinds = {FrameKind.SSE_DATA}
    assert filter_kinds(handler) == {FrameKind.SSE_DATA}


@pytest.mark.parametrize("kinds", [["sse_data"], FrameKind.SSE_DATA, {"sse_data"}, None])
def test_kinds_that_are_none_are_refused(kinds: object) -> None:
    handler: Any = with_methods("filter_stream_chunk")
    handler.filter_kinds = kinds
    with pytest.raises(TypeError, match=r"Gate\.filter_kinds must be a set of FrameKind"):
        check_handler(handler)


# --- handlers that guard nothing


def nothing(*_: object) -> None:
    """Stands for a method."""


def with_methods(*names: str, base: type = object) -> object:
    return type("Gate", (base,), dict.fromkeys(names, nothing))()


@pytest.mark.parametrize("base", [object, InterceptHandler])
@pytest.mark.parametrize(
    ("name", "hook"),
    [
        ("on_requests", "on_request"),
        ("onRequest", "on_request"),
        ("OnRequest", "on_request"),
        ("on_reqest", "on_request"),
        ("on_Request", "on_request"),
        ("on_responce", "on_response"),
        ("on_respone", "on_response"),
        ("on_stream_chunks", "on_stream_chunk"),
        ("filter_stream_chunks", "filter_stream_chunk"),
        ("on_connection_closed", "on_connection_close"),
        ("on_connection_opened", "on_connection_open"),
        ("on_tls_failed", "on_tls_failure"),
        ("should_intercept", "should_intercept_tls"),
        ("shouldInterceptTLS", "should_intercept_tls"),
        ("should_intercept_TLS", "should_intercept_tls"),
    ],
)
def test_a_misspelt_hook_is_refused(name: str, hook: str, base: type) -> None:
    wanted = rf"Gate\.{name} is never called: the method of a handler is `{hook}`"
    with pytest.raises(TypeError, match=wanted):
        check_handler(with_methods(name, base=base))
    # also beside another hook, which alone would not do what was meant
    other = "on_response" if hook != "on_response" else "on_request"
    with pytest.raises(TypeError, match=wanted):
        check_handler(with_methods(name, other, base=base))


@pytest.mark.parametrize("name", OTHER_TOOLS.keys() - {"should_intercept"})
def test_the_hooks_of_other_tools_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match=f"`{name}` is what another tool calls: here it is `{OTHER_TOOLS[name]}`"):
        check_handler(with_methods(name))


@pytest.mark.parametrize(
    ("handler", "part"),
    [
        (object(), "object overrides no method of a handler"),
        ({}, "dict overrides no method"),
        (None, "NoneType overrides no method"),
        (with_methods(base=InterceptHandler), "Gate overrides no method"),
        (with_methods("on_event", "allow"), "it needs one of: on_connection_open, "),
        (re, "the handler is the module re"),
        (nothing, "the handler is the function nothing"),
        (lambda request: HandlerDecision.ALLOW, "the handler is the function "),
        (with_methods("on_request").on_request, "the handler is the function nothing"),  # type: ignore[attr-defined]
        (print, "the handler is the function print"),
        (Gate, "the handler is the class Gate"),
    ],
)
def test_what_is_no_handler_is_refused(handler: object, part: str) -> None:
    with pytest.raises(TypeError, match=part):
        check_handler(handler)


@pytest.mark.parametrize(
    "names",
    [
        # the user's own business, beside a hook
        ("on_request", "on_requests", "onRequest"),
        ("on_request", "request", "response"),
        ("on_request", "on_request_id", "on_request_done", "on_error", "on_exit", "on_event", "on_connection"),
        ("on_response", "_on_request", "_on_requests"),
        ("on_response", "on_request_id", "on_stream_start", "on_stream", "on_response_time"),
        ("on_request", "should_block", "should_allow", "should_log"),
    ],
)
@pytest.mark.parametrize("base", [object, InterceptHandler])
def test_names_that_are_the_user_s_own_are_let_be(names: tuple[str, ...], base: type) -> None:
    check_handler(with_methods(*names, base=base))


def test_what_is_no_method_is_let_be_and_no_property_is_run() -> None:
    class Counts(Gate):
        on_requests = 0

        @property
        def on_responses(self) -> int:
            raise AssertionError("was run")

    check_handler(Counts())


def test_the_base_itself_and_delegating_handlers_pass() -> None:
    class Delegates:
        def __getattr__(self, name: str) -> object:
            return getattr(Gate(), name)

    check_handler(InterceptHandler())
    check_handler(Delegates())


def test_build_refuses_it() -> None:
    config = MitmConfig()
    config.interception.destinations.append("a.example:443")
    with pytest.raises(TypeError, match="the method of a handler is `on_request`"):
        MitmProxyBuilder(config, with_methods("on_requests")).build()
    MitmProxyBuilder(config, InterceptHandler()).build()
    MitmProxyBuilder(config).build()
