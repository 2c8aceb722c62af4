"""A handler that behaves as an input says, and remembers what it was asked and told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import UUID

from fuzz.fake_loop import FakeLoop
from soth_mitm import ConnectionMeta, HandlerDecision, RawRequest, RawResponse, StreamChunk
from soth_mitm.errors import TlsFailedError

HOOKS = ("on_request", "on_response", "on_stream_chunk", "on_stream_end")
BLOCK = HandlerDecision.block(403, "no\n", [("X-Why", "because")])
NOBODY = UUID(int=0)
# How a hook behaves; the first one is what happens unless an operation says otherwise
BEHAVIOURS = ("return", "plain", "wait", "block", "raise", "nonsense", "cancelled", "cancel itself", "yield", "future", "raise later")


class ScriptedHandler:
    """Has the methods `names`. `asked` holds each request with its outcome, empty while there is none; `told` everything else in order.

    `running` are the tasks of hooks that have not returned, by connection.
    """

    def __init__(self, loop: FakeLoop, names: tuple[str, ...]) -> None:
        self.names = names
        self.waiting: list[asyncio.Future[str]] = []
        self.behaviour = dict.fromkeys(names, BEHAVIOURS[0])
        self.asked: list[tuple[RawRequest, list[str]]] = []
        self.told: list[tuple[str, int, Any]] = []
        self.running: dict[UUID, set[asyncio.Task[Any]]] = {}
        self._loop = loop
        methods: dict[str, Callable[..., object]] = {
            "on_request": self._on_request,
            "on_response": self._on_response,
            "on_stream_chunk": self._on_stream_chunk,
            "on_stream_end": self._on_stream_end,
        }
        for name in names:
            setattr(self, name, methods[name])

    def behave_well(self) -> None:
        """Let every hook return from now on."""
        self.behaviour = dict.fromkeys(self.behaviour, BEHAVIOURS[0])

    def behave(self, number: int, data: bytes) -> None:
        """Set how one of the hooks behaves from now on."""
        if self.names:
            self.behaviour[self.names[number % len(self.names)]] = BEHAVIOURS[data[0] % len(BEHAVIOURS)] if data else BEHAVIOURS[0]

    def all_returned(self, connection_id: UUID) -> bool:
        """Tell whether every hook of a connection has returned, or is not waited for any longer."""
        return all(task.cancelling() for task in self.running.get(connection_id, ()))

    def answer(self, number: int, data: bytes) -> None:
        """Let one of the hooks that wait go on."""
        if self.waiting:
            future = self.waiting.pop(number % len(self.waiting))
            if not future.done():
                future.set_result(BEHAVIOURS[data[0] % len(BEHAVIOURS)] if data else BEHAVIOURS[0])

    def permitted(self, on_failure: bool) -> Counter[tuple[str, str]]:
        """Count what was allowed so far, by method and path; with `on_failure`, what the handler failed to decide is allowed too."""
        return Counter(
            (request.method, request.path)
            for request, record in self.asked
            if record == ["allowed"] or (on_failure and record == ["failed"])
        )

    # --- the hooks: a handler reads what it is shown

    def _on_request(self, request: RawRequest) -> object:
        outcome: list[str] = []
        self.asked.append((request, outcome))
        assert request.body is not None and request.headers.raw is not None and request.url and repr(request)
        assert request.trailers is not None and request.body_truncated <= (not request.body_complete)
        return self._outcome("on_request", request.connection_meta.connection_id, HandlerDecision.ALLOW, outcome)

    def _on_response(self, response: RawResponse) -> object:
        self.told.append(("on_response", response.flow_id, response))
        assert response.body is not None and response.headers is not None and response.trailers is not None and repr(response)
        return self._outcome("on_response", response.connection_meta.connection_id, None, [])

    def _on_stream_chunk(self, chunk: StreamChunk) -> object:
        self.told.append(("on_stream_chunk", chunk.flow_id, chunk))
        return self._outcome("on_stream_chunk", chunk.connection_id, None, [])

    def _on_stream_end(self, connection_id: UUID, flow_id: int) -> object:
        self.told.append(("on_stream_end", flow_id, connection_id))
        return self._outcome("on_stream_end", connection_id, None, [])

    def _outcome(self, hook: str, connection_id: UUID, answer: object, outcome: list[str]) -> object:
        kind = self.behaviour[hook]
        if kind == "plain":
            outcome.append("allowed")
            return answer
        if kind == "future":
            outcome.append("allowed")
            future = self._loop.create_future()
            future.set_result(answer)
            return future
        return self._run(kind, connection_id, answer, outcome)

    async def _run(self, kind: str, connection_id: UUID, answer: object, outcome: list[str]) -> object:
        task = asyncio.current_task()
        assert task is not None
        running = self.running.setdefault(connection_id, set())
        running.add(task)
        try:
            if kind == "wait":
                future: asyncio.Future[str] = self._loop.create_future()
                self.waiting.append(future)
                kind = await future
            result = await self._end(kind, answer)
        except BaseException:
            outcome.append("failed")
            raise
        finally:
            running.discard(task)
        # what is no decision forwards nothing, whatever the policy for failures is
        outcome.append("blocked" if result is BLOCK else "allowed" if result is answer else "refused")
        return result

    async def _end(self, kind: str, answer: object) -> object:
        match kind:
            case "yield":
                await asyncio.sleep(0)
            case "cancel itself":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await self._loop.create_future()
            case "block":
                return BLOCK
            case "raise":
                raise RuntimeError("on purpose")
            case "raise later":
                await asyncio.sleep(0)
                raise RuntimeError("on purpose")
            case "nonsense":
                return "nonsense"
            case "cancelled":
                raise asyncio.CancelledError
        return answer


class ConnectionHandler(ScriptedHandler):
    """A handler that also has the hooks of a connection's life, which behave like `on_request`, if that is a hook of theirs."""

    def __init__(self, loop: FakeLoop, names: tuple[str, ...]) -> None:
        super().__init__(loop, names)
        self.opened: list[UUID] = []
        self.closed: list[UUID] = []
        self.intercepting: list[tuple[str, bool, list[str]]] = []

    def on_connection_open(self, meta: ConnectionMeta) -> object:
        self.opened.append(meta.connection_id)
        return self._as_request(meta.connection_id, None)

    def should_intercept_tls(self, host: str, process_info: object) -> object:
        wanted = not host.startswith("b")
        outcome: list[str] = []
        self.intercepting.append((host, wanted, outcome))
        return self._as_request(NOBODY, wanted, outcome)

    def on_tls_failure(self, host: str, error: TlsFailedError) -> object:
        assert host and error.side and error.reason and str(error)
        return self._as_request(NOBODY, None)

    def on_connection_close(self, connection_id: UUID) -> object:
        assert connection_id not in self.closed, "the end of a connection is told twice"
        assert self.all_returned(connection_id), "the end of a connection is told before its hooks have returned"
        self.closed.append(connection_id)
        return self._as_request(connection_id, None)

    def leaves_alone(self, host: str) -> bool:
        """Tell whether the handler has ever had a host tunnelled, or failed to say."""
        return any(name == host and not (wanted and outcome == ["allowed"]) for name, wanted, outcome in self.intercepting)

    def _as_request(self, connection_id: UUID, answer: object, outcome: list[str] | None = None) -> object:
        outcome = [] if outcome is None else outcome
        if "on_request" not in self.names:
            outcome.append("allowed")
            return answer
        return self._outcome("on_request", connection_id, answer, outcome)
