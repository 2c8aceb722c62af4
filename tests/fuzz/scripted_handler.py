"""A handler that behaves as an input says, and remembers what it was asked and told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from fuzz.fake_loop import FakeLoop
from soth_mitm import ChunkDecision, ConnectionMeta, HandlerDecision, RawRequest, RawResponse, ResponseDecision, StreamChunk
from soth_mitm.errors import TlsFailedError

HOOKS = ("on_request", "on_response", "on_stream_chunk", "on_stream_end")
# They decide about responses, and come behind the others in `names`
DECIDING = ("on_response_head", "on_response_body", "filter_stream_chunk")
BLOCK = HandlerDecision.block(403, "no\n", [("X-Why", "because")])
NOBODY = UUID(int=0)
# What a decision that changes something is known by, wherever it arrives: its number
MARK = "x-decided"
# How a hook behaves; the first one is what happens unless an operation says otherwise
BEHAVIOURS = ("return", "plain", "wait", "block", "raise", "nonsense", "cancelled", "cancel itself", "yield", "future", "raise later")
RESPONSES = ("change", "change the status", "replace", "replace with a stream", "replace slowly", "replace and fail", "new head")
# What else a hook may do: decisions of its kind
DECISIONS = {
    "on_request": ("forward", "forward elsewhere", "forward a body", "forward a stream", "respond", "respond slowly", "abort"),
    "on_response_head": (*RESPONSES, "hold", "unfiltered"),
    "on_response_body": RESPONSES,
    "filter_stream_chunk": ("drop", "replace", "replace with two", "end"),
}


def behaviour_of(hook: str, data: bytes) -> str:
    """Return what one byte has a hook do."""
    known = BEHAVIOURS + DECISIONS.get(hook, ())
    return known[data[0] % len(known)] if data else known[0]


class Items:
    """A body that is given piece by piece. `give` is asked for each; what it returns comes next, or it fails."""

    def __init__(self, handler: ScriptedHandler, how: str, number: int) -> None:
        self.given = b""
        self.ended = self.closed = self.begun = False
        self._handler = handler
        self._how = how
        self._left = [b"first of %d\n" % number, b"", b"second\n"]

    def __aiter__(self) -> Items:
        return self

    async def __anext__(self) -> bytes:
        self.begun = True
        if self._how == "slowly":
            await self._handler.wait("")
        if self._how == "and fail" and len(self._left) == 1:
            self.ended = True
            raise RuntimeError("on purpose")
        if not self._left:
            self.ended = True
            raise StopAsyncIteration
        item = self._left.pop(0)
        self.given += item
        return item

    async def aclose(self) -> None:
        assert not self.closed
        self.closed = True


@dataclass
class Question:
    """One question to the handler that is answered by a decision. `outcome` is empty while there is none."""

    hook: str
    number: int
    flow_id: int
    shown: Any
    outcome: list[str] = field(default_factory=list)
    decision: Any = None
    items: Items | None = None


class ScriptedHandler:
    """Has the methods `names`. `asked` holds each request with its outcome, empty while there is none; `told` everything else in order.

    `running` are the tasks of hooks that have not returned, by connection. `questions` are those that a decision answers, about requests
    too. `wrong` says what a hook was told that it must not be told.
    """

    def __init__(self, loop: FakeLoop, names: tuple[str, ...]) -> None:
        self.names = names
        self.waiting: list[tuple[str, asyncio.Future[str]]] = []
        self.behaviour = dict.fromkeys(names, BEHAVIOURS[0])
        self.questions: list[Question] = []
        self.wrong: list[str] = []
        self.asked: list[tuple[RawRequest, list[str]]] = []
        self.told: list[tuple[str, int, Any]] = []
        self.running: dict[UUID, set[asyncio.Task[Any]]] = {}
        self._loop = loop
        methods: dict[str, Callable[..., object]] = {
            "on_request": self._on_request,
            "on_response": self._on_response,
            "on_stream_chunk": self._on_stream_chunk,
            "on_stream_end": self._on_stream_end,
            "on_response_head": self._on_response_head,
            "on_response_body": self._on_response_body,
            "filter_stream_chunk": self._filter_stream_chunk,
        }
        for name in names:
            setattr(self, name, methods[name])

    def behave_well(self) -> None:
        """Let every hook return from now on."""
        self.behaviour = dict.fromkeys(self.behaviour, BEHAVIOURS[0])

    def behave(self, number: int, data: bytes) -> None:
        """Set how one of the hooks behaves from now on."""
        if self.names:
            name = self.names[number % len(self.names)]
            self.behaviour[name] = behaviour_of(name, data)

    @property
    def decides(self) -> bool:
        """Whether anything was or can be said but to let pass or block a request."""
        changes = (question.decision is not None and question.decision is not BLOCK for question in self.questions)
        return bool(set(DECIDING) & set(self.names)) or any(changes)

    def all_returned(self, connection_id: UUID) -> bool:
        """Tell whether every hook of a connection has returned, or is not waited for any longer."""
        return all(task.cancelling() for task in self.running.get(connection_id, ()))

    def answer(self, number: int, data: bytes) -> None:
        """Let one of the hooks that wait go on."""
        if self.waiting:
            hook, future = self.waiting.pop(number % len(self.waiting))
            if not future.done():
                future.set_result(behaviour_of(hook, data))

    async def wait(self, hook: str) -> str:
        """Wait for an operation that lets it go on."""
        future: asyncio.Future[str] = self._loop.create_future()
        self.waiting.append((hook, future))
        return await future

    def permitted(self, on_failure: bool) -> Counter[tuple[str, str]]:
        """Count what was allowed so far, by method and path; with `on_failure`, what the handler failed to decide is allowed too."""
        return Counter(
            name_after(question)
            for question in self.questions
            if question.hook == "on_request" and (question.outcome == ["allowed"] or (on_failure and question.outcome == ["failed"]))
        )

    # --- the hooks: a handler reads what it is shown

    def _on_request(self, request: RawRequest) -> object:
        question = self._question("on_request", request.flow_id, request)
        self.asked.append((request, question.outcome))
        assert request.body is not None and request.headers.raw is not None and request.url and repr(request)
        assert request.trailers is not None and request.body_truncated <= (not request.body_complete)
        return self._outcome("on_request", request.connection_meta.connection_id, HandlerDecision.ALLOW, question)

    def _on_response_head(self, response: RawResponse) -> object:
        self._check_asked_once("on_response_head", response)
        question = self._question("on_response_head", response.flow_id, response)
        assert response.body == b"" and response.headers.raw is not None and repr(response)
        return self._outcome("on_response_head", response.connection_meta.connection_id, ResponseDecision.PASS, question)

    def _on_response_body(self, response: RawResponse) -> object:
        held = [each for each in self.questions if each.hook == "on_response_head" and each.flow_id == response.flow_id]
        if not (held and held[-1].decision is ResponseDecision.HOLD and held[-1].outcome == ["allowed"]):
            self.wrong.append(f"asked about a body that it did not wait for: {response!r}")
        self._check_asked_once("on_response_body", response)
        question = self._question("on_response_body", response.flow_id, response)
        assert response.body is not None and response.trailers is not None and repr(response)
        return self._outcome("on_response_body", response.connection_meta.connection_id, ResponseDecision.PASS, question)

    def _filter_stream_chunk(self, chunk: StreamChunk) -> object:
        if any(self._same_direction(each, chunk) and not each.outcome for each in self.questions):
            self.wrong.append(f"asked about a frame while it decides about the one before: {chunk!r}")
        question = self._question("filter_stream_chunk", chunk.flow_id, chunk)
        assert repr(chunk)
        return self._outcome("filter_stream_chunk", chunk.connection_id, ChunkDecision.PASS, question)

    @staticmethod
    def _same_direction(question: Question, chunk: StreamChunk) -> bool:
        if question.hook != "filter_stream_chunk" or question.flow_id != chunk.flow_id:
            return False
        return bool(question.shown.direction == chunk.direction)

    def _check_asked_once(self, hook: str, response: RawResponse) -> None:
        if any(each.hook == hook and each.flow_id == response.flow_id for each in self.questions):
            self.wrong.append(f"{hook} is asked again: {response!r}")

    def _question(self, hook: str, flow_id: int, shown: object) -> Question:
        self.questions.append(Question(hook, len(self.questions), flow_id, shown))
        return self.questions[-1]

    def _on_response(self, response: RawResponse) -> object:
        about = [each for each in self.questions if each.flow_id == response.flow_id and each.hook in DECIDING]
        if any(getattr(each.decision, "is_block", False) for each in about):
            self.wrong.append(f"told of a response that it blocked: {response!r}")
        self.told.append(("on_response", response.flow_id, response))
        assert response.body is not None and response.headers is not None and response.trailers is not None and repr(response)
        return self._outcome("on_response", response.connection_meta.connection_id, None, self._nobody())

    def _on_stream_chunk(self, chunk: StreamChunk) -> object:
        self.told.append(("on_stream_chunk", chunk.flow_id, chunk))
        return self._outcome("on_stream_chunk", chunk.connection_id, None, self._nobody())

    def _on_stream_end(self, connection_id: UUID, flow_id: int) -> object:
        self.told.append(("on_stream_end", flow_id, connection_id))
        return self._outcome("on_stream_end", connection_id, None, self._nobody())

    @staticmethod
    def _nobody(outcome: list[str] | None = None) -> Question:
        """Return a question that nobody looks at."""
        return Question("", 0, 0, None, [] if outcome is None else outcome)

    def _outcome(self, hook: str, connection_id: UUID, answer: object, question: Question) -> object:
        kind = self.behaviour[hook]
        if kind == "plain":
            question.outcome.append("allowed")
            return answer
        if kind == "future":
            question.outcome.append("allowed")
            future = self._loop.create_future()
            future.set_result(answer)
            return future
        return self._run(kind, hook, connection_id, answer, question)

    async def _run(self, kind: str, hook: str, connection_id: UUID, answer: object, question: Question) -> object:
        task = asyncio.current_task()
        assert task is not None
        running = self.running.setdefault(connection_id, set())
        running.add(task)
        try:
            if kind == "wait":
                kind = await self.wait(hook)
            result = await self._end(kind, answer, question)
        except BaseException:
            question.outcome.append("failed")
            raise
        finally:
            running.discard(task)
        # what is no decision forwards nothing, whatever the policy for failures is
        made = result is not answer and type(result) is type(answer) and answer is not None and not isinstance(answer, bool)
        if made:
            question.decision = result
        stops = made and getattr(result, "kind", "") in ("block", "respond", "abort")
        question.outcome.append("blocked" if stops else "allowed" if made or result is answer else "refused")
        return result

    async def _end(self, kind: str, answer: object, question: Question) -> object:
        match kind:
            case "yield":
                await asyncio.sleep(0)
            case "cancel itself":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await self._loop.create_future()
            case "block" if question.hook in ("on_response_head", "on_response_body"):
                return ResponseDecision.block(451, "no response\n", [(MARK, str(self.number_of(question)))])
            case "block" if question.hook == "filter_stream_chunk":
                return ChunkDecision.END
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
            case "plain" | "future" | "wait" | "return":
                pass
            case _:
                return self._decide(kind, question)
        return answer

    def number_of(self, question: Question) -> int:
        """Return what a decision is known by."""
        return question.number

    def _decide(self, kind: str, question: Question) -> object:
        """Make a decision that does more than to let pass, or to block."""
        if not question.hook:
            return "nonsense"
        if question.hook == "on_request":
            return self._decide_request(kind, question)
        if question.hook == "filter_stream_chunk":
            two = (b'"one"', b'"two"')
            made = {"drop": ChunkDecision.DROP, "end": ChunkDecision.END, "replace": ChunkDecision.replace(two[0])}
            return made.get(kind) or ChunkDecision.replace(*two)
        mark, number = (MARK, str(self.number_of(question))), self.number_of(question)
        replace = ResponseDecision.replace
        match kind:
            case "hold":
                return ResponseDecision.HOLD
            case "unfiltered":
                return ResponseDecision.UNFILTERED
            case "change":
                return ResponseDecision.change(set=[mark, ("x-t", "set")], add=[("x-added", "1")], remove=("x-gone", "server"))
            case "change the status":
                return ResponseDecision.change(set=[mark], status=299)
            case "replace":
                return replace(body=b"replaced %d" % number, set=[mark], remove=["x-gone"])
            case "new head":
                return replace(203, b"new %d" % number, [mark, ("Content-Type", "application/x-new")])
        question.items = Items(self, kind.removeprefix("replace "), number)
        return replace(body=question.items, set=[mark])

    def _decide_request(self, kind: str, question: Question) -> object:
        mark, number = (MARK, str(self.number_of(question))), self.number_of(question)
        match kind:
            case "forward":
                return HandlerDecision.forward(set=[mark, ("x-t", "set")], add=[("x-added", "1")], remove=("x-gone", "accept"))
            case "forward elsewhere":
                return HandlerDecision.forward(set=[mark], path=f"/decided/{number}?a=b")
            case "forward a body":
                return HandlerDecision.forward(set=[mark], body=b"given %d" % number)
            case "respond":
                return HandlerDecision.respond(200, b"own %d" % number, [mark])
            case "abort":
                return HandlerDecision.abort()
        question.items = Items(self, kind.rpartition(" ")[2], number)
        if kind == "forward a stream":
            return HandlerDecision.forward(set=[mark], body=question.items)
        return HandlerDecision.respond(201, question.items, [mark])


def name_after(question: Question) -> tuple[str, str]:
    """Return method and path of a request as it is forwarded after a decision."""
    path = getattr(question.decision, "path", None)
    return question.shown.method, question.shown.path if path is None else path.decode()


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
        return self._outcome("on_request", connection_id, answer, self._nobody(outcome))
