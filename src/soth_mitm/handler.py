"""The handler: the user's object whose methods the proxy calls.

Derive from `InterceptHandler` and override what you need, each method as `def` or `async def`. A method that is not overridden costs
nothing. Any object with methods of these names will do as well; what it lacks counts as not overridden.

What holds for all of them:

- They are called on the event loop that serves the connection. A plain `def` must return soon: it cannot be interrupted, and everything
  else on that loop waits for it.
- A coroutine that finishes without suspending runs within the read that caused it. One that suspends becomes a task of its own; at its
  deadline that task is cancelled, and where nobody waits for a decision any more: `on_request`, `on_connect`,
  `on_response_head` and `on_response_body` of a request whose client has left.
- An exception is counted in `handler_panic_count`, a missed deadline in `handler_timeout_count`; then the flow goes on as the method's text
  says. With `handler.recover_from_panics = false` an exception aborts the flow instead. `asyncio.CancelledError` is one like another.
- What is no `Exception` (`SystemExit`, `KeyboardInterrupt`, one of your own) ends the flow, with nothing forwarded, and is raised to the
  owner of the proxy: by `handle.wait_closed()`, by `run_forever()`, at the end of `async with`.
- A deadline is kept whatever the coroutine does: one that swallows its cancellation goes on alone.
- Nothing opens the way by mistake: a value that is no answer blocks, and so does a call of `HandlerDecision.block`, or of another way to
  make a decision, whose arguments are refused, whatever `handler.failure_policy` says.
- For one flow the order is `on_request`, `on_response_head`, `on_response_body`, `on_response`, `on_stream_chunk`..., `on_stream_end`, one
  at a time. `filter_stream_chunk` comes before `on_stream_chunk` of the same frame. Different flows interleave.
"""

import inspect
import re
from collections.abc import Awaitable
from difflib import SequenceMatcher
from types import FunctionType, ModuleType
from typing import ClassVar
from uuid import UUID

from soth_mitm._dataplane.http.messages import FrameKind, RawRequest, RawResponse, StreamChunk
from soth_mitm.chunk_decision import ChunkDecision
from soth_mitm.connect_decision import ConnectDecision, ConnectTarget
from soth_mitm.connection import ConnectionMeta, ProcessInfo
from soth_mitm.decision import HandlerDecision
from soth_mitm.errors import TlsFailedError
from soth_mitm.response_decision import ResponseDecision

HOOKS = (
    "on_connection_open",
    "on_connect",
    "should_intercept_tls",
    "on_tls_failure",
    "on_request",
    "on_response_head",
    "on_response_body",
    "on_response",
    "filter_stream_chunk",
    "on_stream_chunk",
    "on_stream_end",
    "on_connection_close",
)


# What handlers of other tools are called there (mitmproxy, hudsucker, proxy.py, mockttp), and what comes nearest here.
OTHER_TOOLS = {
    "request": "on_request",
    "requestheaders": "on_request",
    "response": "on_response",
    "responseheaders": "on_response",
    "http_connect": "should_intercept_tls",
    "tls_clienthello": "should_intercept_tls",
    "tls_failed_client": "on_tls_failure",
    "tls_failed_server": "on_tls_failure",
    "websocket_message": "on_stream_chunk",
    "client_connected": "on_connection_open",
    "client_disconnected": "on_connection_close",
    "handle_request": "on_request",
    "handle_response": "on_response",
    "handle_client_request": "on_request",
    "handle_upstream_chunk": "on_stream_chunk",
    "should_intercept": "should_intercept_tls",
    "before_request": "on_request",
    "after_response": "on_response",
}
# How like a hook's name another name is that is taken for it: `on_requests` is 0.95, `on_request_id` 0.87.
LIKENESS = 0.88


class InterceptHandler:
    """Base class of handlers. Its own methods intercept everything, allow everything and look at nothing."""

    filter_kinds: ClassVar[frozenset[FrameKind]] = frozenset(FrameKind)
    """What `filter_stream_chunk` is for. Streams of other kinds are neither held nor decoded for it. Read once, when the proxy is built."""

    def on_connection_open(self, meta: ConnectionMeta) -> None | Awaitable[None]:
        """A client connected.

        When: once per accepted connection, after its process was looked up, before its first byte is acted on.
        Gets: the connection so far; `target` and `tls_info` are None.
        Deadline: `handler.response_timeout_ms`. Failure: counted; the connection goes on.
        """

    def on_connect(self, target: ConnectTarget) -> ConnectDecision | None | Awaitable[ConnectDecision | None]:
        """Decide about a destination, listed or not.

        When: for each CONNECT, and the first time that a client connection names a destination in a request to forward (a URL in the
        request line, or `Host` on the Unix socket); before its name is resolved and before anything is dialled. With
        `interception.check_names` also for each other name that TLS (SNI) or a request (`Host`) asks for on the way to a destination, if
        the policy would let it through. Not for what matches `interception.blocked`, which no handler can open.
        Gets: the destination, the client's connection, and what the policy would do. It may wait, for a person for example; a client that
        leaves meanwhile ends the wait, and cancels the coroutine.
        Returns: None to leave it to the policy, and then to `should_intercept_tls`. `ConnectDecision.INTERCEPT` intercepts, also what is
        not listed, also where the policy blocks what is not listed, and whatever was learnt of refusals (`tls.learn_bypass`).
        `ConnectDecision.TUNNEL` relays unread, also what is listed; a forwarded request then goes on without the handler.
        `ConnectDecision.block(reason, status)` answers the client so. Of another name inside a connection only a block counts, and in a
        tunnel INTERCEPT as well: the connection goes where it goes. In a tunnel the answer is the TLS alert unrecognized_name.
        Deadline: `handler.connect_timeout_ms`. Failure: `handler.failure_policy`; `allow` does as the policy says, `block` answers 403. Any
        other value that is returned answers 403, in monitor mode it does as the policy says.
        """
        return None

    def should_intercept_tls(self, host: str, process_info: ProcessInfo | None) -> bool | Awaitable[bool]:
        """Decide whether a CONNECT to a listed destination is intercepted.

        When: once per CONNECT that `on_connect` left to the policy and that the policy would intercept, before the client's TLS handshake
        is answered.
        Gets: the host of the target, normalised, and the client's process if it is known.
        Returns: False to tunnel the connection untouched, True to intercept it, unless it is a TLS bypass (`handle.tls_bypasses()`).
        Deadline: `handler.request_timeout_ms`. Failure: `handler.failure_policy`; `block` answers 403, `allow` tunnels. Anything else
        than True or False is counted as an exception and answered 403.
        """
        return True

    def on_tls_failure(self, host: str, error: TlsFailedError) -> None | Awaitable[None]:
        """A TLS handshake failed.

        When: after a handshake with the client or with the upstream failed.
        Gets: the host of the target, and the error with its `side`, its class in `reason`, and the library's words in `detail`;
        `certificate_refused` says that a client did not accept our certificate, as far as can be told.
        Deadline: `handler.request_timeout_ms`. Failure: counted.
        """

    def on_request(self, request: RawRequest) -> HandlerDecision | Awaitable[HandlerDecision]:
        """Decide about a request.

        When: for every request of every protocol, before anything of it reaches the upstream. With `intercept_mode = "monitor"`: after
        the request was forwarded, and what is returned is counted but not applied.
        Gets: the request, with its whole body unless `request.body_problem` says why not. A gate that looks at bodies blocks what has such
        a problem, or sets `body.incomplete = "refuse"`: then the proxy answers those requests, and asks about whole bodies only.
        Returns: `HandlerDecision.ALLOW` to forward it as it came, `HandlerDecision.forward(set=..., ...)` to forward it changed,
        `HandlerDecision.block(status, body)` to refuse it with that answer, `HandlerDecision.respond(status, body)` to answer it in the
        upstream's place, `HandlerDecision.abort()` to end it without an answer.
        Deadline: `handler.request_timeout_ms`. Failure: `handler.failure_policy`; `block` answers 502, `allow` forwards. Any other value
        that is returned is counted as an exception and answered 502, and so is a change that cannot be applied to this request.
        """
        return HandlerDecision.ALLOW

    def on_response_head(self, response: RawResponse) -> ResponseDecision | Awaitable[ResponseDecision]:
        """Decide about a response at its head.

        When: at each final head of an upstream's response, 101 included, before a byte of it goes to the client. Interim responses (1xx)
        have passed. A response that waits for this decision is not read further, while the upload goes on. Not with
        `intercept_mode = "monitor"`.
        Gets: the response with an empty `body`. `streaming` says that it is a stream or a 101. Its `request` is the object that
        `on_request` was given, or one that is made for this call, with the same part of the body.
        Returns: `ResponseDecision.PASS` to relay it as it came, `ResponseDecision.change(set=..., status=...)` to relay it with another
        head, `ResponseDecision.HOLD` to be asked again by `on_response_body`, `ResponseDecision.replace(status, body, headers)` to send
        another body, `ResponseDecision.block(status, body)` to send another response, `ResponseDecision.UNFILTERED` to relay it without
        `filter_stream_chunk`. `HOLD` is not for streams and 101, where it is counted as an exception and answered 502.
        Deadline: `handler.response_timeout_ms`. Failure: `handler.failure_policy`; `block` answers 502, `allow` passes. Any other value
        that is returned is counted as an exception and answered 502, and so is a decision that cannot be applied to this response.
        """
        return ResponseDecision.PASS

    def on_response_body(self, response: RawResponse) -> ResponseDecision | Awaitable[ResponseDecision]:
        """Decide about a response after `HOLD`, with its body.

        When: when the body is there, before a byte of the response goes to the client. If it is longer than `body.max_size_bytes`, or not
        complete after `body.buffer_timeout_ms`: with the part that came, and `response.body_complete` is False. With
        `body.overflow = "reject"` a longer one is answered 502 instead, with `body.incomplete = "refuse"` each one that is not complete or
        cannot be decoded. If the upstream ends before its response is complete, the client gets a 502 and this is not called.
        Gets: the response; `body` has its content codings removed.
        Returns: as `on_response_head`, but for `HOLD`. A part that came cannot be replaced.
        Deadline: `handler.response_timeout_ms`. Failure: as of `on_response_head`.
        """
        return ResponseDecision.PASS

    def on_response(self, response: RawResponse) -> None | Awaitable[None]:
        """Look at a response.

        When: once per request that got a final response: with its whole body, or, where the response is a stream (SSE, NDJSON, gRPC,
        WebSocket; docs/streams.md), at its head and before its first chunk. The client does not wait for this.
        Gets: the response as it was relayed, with what a decision has changed. One that was blocked is not shown.
        `streaming` tells the two cases apart. Its `request` is the object that `on_request` was given. Without an
        `on_request` it is made for this call, with the same part of the body that `on_request` would have been given.
        Deadline: `handler.response_timeout_ms`. Failure: counted; the response is not touched.
        """

    def filter_stream_chunk(self, chunk: StreamChunk) -> ChunkDecision | Awaitable[ChunkDecision]:
        """Decide about one SSE event, NDJSON line, gRPC message or WebSocket message before it is relayed.

        When: in wire order, one at a time per direction; that direction waits, the other one goes on. For the kinds in `filter_kinds`.
        Comments of SSE, blocks of it without data, and the closes and pings of a WebSocket pass without a question. Not with
        `intercept_mode = "monitor"`.
        Gets: the chunk as it came, and decoded: what is filtered leaves without its Content-Encoding. A chunk that is longer than
        `body.max_size_bytes` is `truncated`: PASS relays the rest of it unseen, DROP drops it, and it cannot be replaced. With
        `body.incomplete = "refuse"` or `body.overflow = "reject"` it ends the stream, and the handler is not asked.
        Returns: `ChunkDecision.PASS` to relay the chunk as it came, `ChunkDecision.DROP` to leave it out,
        `ChunkDecision.replace(*payloads)` to send others instead, `ChunkDecision.END` to end the stream.
        Deadline: `handler.response_timeout_ms`. Failure: `handler.failure_policy`; `allow` relays the chunk, `block` ends the stream. Any
        other value that is returned is counted as an exception and ends the stream, and so does a replacement that cannot be applied.
        """
        return ChunkDecision.PASS

    def on_stream_chunk(self, chunk: StreamChunk) -> None | Awaitable[None]:
        """Look at one SSE event, NDJSON line, gRPC message, or message or close of a WebSocket.

        When: in wire order, one at a time per flow, after the bytes were relayed: what `filter_stream_chunk` dropped is not shown, what it
        sent instead is, with `replaced`. A handler that stays behind paces the flow for at most
        `flow_runtime.dispatch_queue_send_timeout_ms`; then chunks are dropped and counted in `dropped_dispatch_work_count`.
        Gets: the chunk, with the flow's `request`, its `direction` (what clients of gRPC and WebSocket send, too), and its `sequence`,
        counted from 0 per flow and direction.
        Deadline: `handler.response_timeout_ms`. Failure: counted; the stream goes on.
        """

    def on_stream_end(self, connection_id: UUID, flow_id: int) -> None | Awaitable[None]:
        """A stream ended.

        When: once per flow with a streaming response or with messages of a gRPC request, after its last chunk, also when it was cut.
        Deadline: `handler.response_timeout_ms`. Failure: counted.
        """

    def on_connection_close(self, connection_id: UUID) -> None | Awaitable[None]:
        """A connection is over.

        When: exactly once per accepted connection, after every other call for it.
        Deadline: `handler.response_timeout_ms`. Failure: counted.
        """


def overridden_hooks(handler: object) -> frozenset[str]:
    """Return the names of the methods that `handler` brings itself, on its class or on the object. Look once, when the proxy is built.

    `TypeError` if `handler` is a class, or has something under a hook's name that cannot be called.
    """
    if isinstance(handler, type):
        raise TypeError(f"the handler is the class {handler.__name__}; pass an object of it: {handler.__name__}()")
    return frozenset(name for name in HOOKS if _is_overridden(handler, name))


def filter_kinds(handler: object) -> frozenset[FrameKind]:
    """Return the kinds of frames that `filter_stream_chunk` of `handler` is for; none if it has no such method.

    `TypeError` if its `filter_kinds` is no set of `FrameKind`.
    """
    if not _is_overridden(handler, "filter_stream_chunk"):
        return frozenset()
    kinds = getattr(handler, "filter_kinds", InterceptHandler.filter_kinds)
    if not isinstance(kinds, frozenset | set) or not all(isinstance(kind, FrameKind) for kind in kinds):
        raise TypeError(f"{type(handler).__name__}.filter_kinds must be a set of FrameKind, got {kinds!r}")
    return frozenset(kinds)


def _is_overridden(handler: object, name: str) -> bool:
    hook = getattr(handler, name, None)
    if hook is None:
        return False
    if not callable(hook):
        raise TypeError(f"{type(handler).__name__}.{name} must be a method, got {hook!r}")
    return getattr(hook, "__func__", hook) is not getattr(InterceptHandler, name)


def check_handler(handler: object) -> None:
    """Refuse a handler that guards nothing, which would let everything pass without a word. `TypeError` names the nearest hook.

    `InterceptHandler()` itself is one that wants to look at nothing.
    """
    if isinstance(handler, ModuleType):
        raise TypeError(f"the handler is the module {handler.__name__}; pass an object whose class has the methods, such as on_request")
    if isinstance(handler, FunctionType) or inspect.ismethod(handler) or inspect.isbuiltin(handler):
        raise TypeError(f"the handler is the function {handler.__qualname__}; pass an object whose class has it as its method on_request")
    overridden = overridden_hooks(handler)
    filter_kinds(handler)
    if "on_response_body" in overridden and "on_response_head" not in overridden:
        raise TypeError(
            f"{type(handler).__name__}.on_response_body is never called: it is for responses for which on_response_head returns "
            "ResponseDecision.HOLD, and there is no on_response_head"
        )
    for name in overridden:
        _check_call(handler, name)
    names = _methods_of(handler)
    for name in names:
        hook = _meant(name)
        if hook is not None and hook not in overridden:
            raise TypeError(
                f"{type(handler).__name__}.{name} is never called: the method of a handler is `{hook}`. Rename it, or put an underscore "
                "before a name that is only yours"
            )
    if overridden or type(handler) is InterceptHandler:
        return
    for name in names:
        if name in OTHER_TOOLS:
            raise TypeError(
                f"{type(handler).__name__} overrides no method of a handler; `{name}` is what another tool calls: here it is "
                f"`{OTHER_TOOLS[name]}` (see soth_mitm.InterceptHandler)"
            )
    raise TypeError(
        f"{type(handler).__name__} overrides no method of a handler, so it would let everything pass; it needs one of: {', '.join(HOOKS)}. "
        "To look at nothing, pass InterceptHandler() or no handler"
    )


def _check_call(handler: object, name: str) -> None:
    """Refuse a hook that cannot be called as hooks are."""
    method = getattr(handler, name)
    if not callable(method):
        # what cannot be called says so when it is
        return
    if inspect.isasyncgenfunction(method) or inspect.isgeneratorfunction(method):
        raise TypeError(f"{type(handler).__name__}.{name} has a `yield`, so it returns a generator and decides nothing; use `return`")
    wanted = list(inspect.signature(getattr(InterceptHandler, name)).parameters)[1:]
    try:
        inspect.signature(method).bind(*wanted)
    except ValueError:
        # compiled code that does not say what it takes
        return
    except TypeError as error:
        raise TypeError(f"{type(handler).__name__}.{name} cannot be called with ({', '.join(wanted)}): {error}") from None


def _methods_of(handler: object) -> list[str]:
    """Return the names of what can be called on `handler` by a public name, and is not of the base class."""
    names = [*getattr(handler, "__dict__", ()), *dir(type(handler))]
    theirs = set(dir(InterceptHandler))
    return [name for name in dict.fromkeys(names) if not name.startswith("_") and name not in theirs and _can_be_called(handler, name)]


def _can_be_called(handler: object, name: str) -> bool:
    # without running a property's code
    found = inspect.getattr_static(handler, name, None)
    return callable(found) or isinstance(found, staticmethod | classmethod)


def _meant(name: str) -> str | None:
    """Return the hook that `name` is likely to be meant for, if it looks like one that is misspelt."""
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    if not snake.startswith(("on_", "should_", "filter_")):
        return None
    likest = max(HOOKS, key=lambda hook: _likeness(snake, hook))
    return likest if _likeness(snake, likest) >= LIKENESS else None


def _likeness(name: str, hook: str) -> float:
    return SequenceMatcher(None, name, hook, autojunk=False).ratio()
