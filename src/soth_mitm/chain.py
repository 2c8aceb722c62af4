"""Several handlers as one: `Chain`."""

import dataclasses
from collections.abc import Callable, Generator
from functools import partial
from inspect import isawaitable
from typing import Any, NamedTuple

from soth_mitm import response_decision
from soth_mitm._dataplane.http.messages import FrameKind, RawRequest, RawResponse, StreamChunk
from soth_mitm.chunk_decision import ChunkDecision, SseEvent
from soth_mitm.connect_decision import ConnectDecision
from soth_mitm.decision import HandlerDecision, merged
from soth_mitm.errors import DecisionValueError
from soth_mitm.handler import InterceptHandler, check_handler, filter_kinds, overridden_hooks
from soth_mitm.policy import Action
from soth_mitm.response_decision import ResponseDecision

Method = Callable[..., Any]
Round = Generator[Any, Any, Any]
"""Yields what each member returned, and is sent what it means, awaited where it was awaitable. Returns the answer of the chain."""


class Chain(InterceptHandler):
    """Several handlers as one. Hooks that no member has cost nothing.

    Decisions: members are asked in order, each sees the message as those before it left it. A block, an answer or an end by one of them
    ends the round, and the others are not asked. In `on_connect` a block ends it, and otherwise the first INTERCEPT or TUNNEL stands; in
    `should_intercept_tls` the first False ends it.

    Responses: a member that says `HOLD` is asked by its `on_response_body` as soon as the body is there, and only then the members behind
    it are asked about the head, as it was left; they may hold as well. A block ends the round. A `change` and a `replace` do not: those
    behind are shown what is left, and what they change is added. `UNFILTERED` is about the filter of the member that says it.

    Frames: each member is asked about the kinds in its `filter_kinds`, and about each payload of a `replace` before it. `DROP` ends the
    round for that payload, `END` for the stream.

    Observers: all are told, in order, also when one of them fails.

    A member that fails counts by `handler.failure_policy` for the whole round: those behind it are not asked, and what those before it
    wanted to change is not applied. Where all members with a hook answer without waiting, the chain does too.

    A chain may be a member of another one. `TypeError` says which member is no handler.
    """

    def __init__(self, *handlers: object) -> None:
        """`handlers` are `InterceptHandler`s, or objects with methods of the same names; at least one."""
        if not handlers:
            raise TypeError("a Chain needs at least one handler")
        for number, handler in enumerate(handlers):
            try:
                check_handler(handler)
            except TypeError as error:
                raise TypeError(f"member {number} of the Chain: {error}") from None
        self._members = handlers
        hooks: dict[str, list[Method]] = {}
        for handler in handlers:
            for name in overridden_hooks(handler):
                hooks.setdefault(name, []).append(getattr(handler, name))
        judges = tuple(_Judge(number, handler) for number, handler in enumerate(handlers))
        deciding = tuple(judge for judge in judges if judge.on_head is not None)
        filtering = tuple(judge for judge in judges if judge.on_chunk is not None)
        # tells the notes of a chain from those of a chain that is its member
        key = object()
        rounds: dict[str, Callable[..., Round]] = {
            "on_response_head": partial(_decided_response, key, deciding, filtering, False),
            "on_response_body": partial(_decided_response, key, deciding, filtering, True),
        }
        if filtering:
            self.filter_kinds = frozenset[FrameKind]().union(*(judge.kinds for judge in filtering))  # type: ignore[misc]
        # the UNFILTERED of a member is about its own filter
        are_apart = len(deciding) == 1 and any(judge is not deciding[0] for judge in filtering)
        for name, methods in hooks.items():
            is_shared = len(deciding) > 1 or are_apart if name in ("on_response_head", "on_response_body") else len(methods) > 1
            # a member's own, where it is the only one: nothing stands between it and the proxy
            if not is_shared:
                made = methods[0]
            elif name == "filter_stream_chunk":
                made = _chunk_hook(key, filtering)
            else:
                made = _hook(rounds.get(name) or partial(_ROUNDS.get(name, _observed), tuple(methods)))
            setattr(self, name, made)

    def __repr__(self) -> str:
        return f"Chain({', '.join(map(repr, self._members))})"


class _Judge:
    """A member of a chain, as far as it decides about responses and frames. A hook that it lacks is None."""

    __slots__ = ("kinds", "number", "on_body", "on_chunk", "on_head")

    def __init__(self, number: int, handler: Any) -> None:
        hooks = overridden_hooks(handler)
        self.number = number
        self.on_head: Method | None = handler.on_response_head if "on_response_head" in hooks else None
        self.on_body: Method | None = handler.on_response_body if "on_response_body" in hooks else None
        self.on_chunk: Method | None = handler.filter_stream_chunk if "filter_stream_chunk" in hooks else None
        self.kinds: frozenset[FrameKind] = filter_kinds(handler)


class _Left(NamedTuple):
    """How far a round about a response has come. It lies in the exchange, as a note of the decision, until the chain is asked again."""

    holder: int  # the number of the member that waits for the body
    whole: ResponseDecision  # what those before it want
    unfiltered: frozenset[int]  # members that do not filter this flow


def _hook(rounds: Callable[..., Round]) -> Method:
    def hook(*arguments: Any) -> Any:
        return _run(rounds(*arguments))

    return hook


def _chunk_hook(key: object, judges: tuple[_Judge, ...]) -> Method:
    def hook(chunk: StreamChunk) -> Any:
        if chunk._note:
            return _run(_decided_chunk(key, judges, chunk))
        # most pass, and each frame of a stream comes here
        kind = chunk.frame_kind
        for number, judge in enumerate(judges):
            if kind in judge.kinds:
                assert judge.on_chunk is not None
                decision = judge.on_chunk(chunk)
                if decision is not ChunkDecision.PASS:
                    return _run(_decided_chunk(key, judges[number:], chunk, decision))
        return ChunkDecision.PASS

    return hook


def _run(round_: Round) -> Any:
    """Run a round to its end, or as far as it goes without waiting: then return what is to be awaited."""
    try:
        result = next(round_)
        while not isawaitable(result):
            result = round_.send(result)
    except StopIteration as end:
        return end.value
    return _run_on(round_, result)


async def _run_on(round_: Round, result: Any) -> Any:
    """Run the rest of a round, beginning with a result that is awaitable."""
    try:
        while True:
            if isawaitable(result):
                try:
                    result = await result
                except BaseException as error:
                    # a cancellation is told to the round as well: it ends here in any case, unless the round deals with a failure
                    result = round_.throw(error)
                    continue
            result = round_.send(result)
    except StopIteration as end:
        return end.value
    finally:
        round_.close()


def _decided_request(members: tuple[Method, ...], request: RawRequest) -> Round:
    seen = request
    whole: HandlerDecision = HandlerDecision.ALLOW
    for member in members:
        decision = yield member(seen)
        if decision is HandlerDecision.ALLOW:
            continue
        if type(decision) is not HandlerDecision or decision.kind not in ("allow", "forward"):
            # what is no decision is the proxy's to refuse
            return decision
        if decision.kind == "forward":
            try:
                seen = seen.changed(decision)
            except ValueError as error:
                # whatever failure_policy says: without the change it is not the request that the member let go
                raise DecisionValueError(f"a change by a member of the Chain cannot be applied: {error}") from error
            whole = decision if whole.kind == "allow" else merged(whole, decision)
    return whole


def _decided_response(
    key: object, judges: tuple[_Judge, ...], filtering: tuple[_Judge, ...], is_held: bool, response: RawResponse
) -> Round:
    notes = dict(response._note or ())
    left = notes.pop(key, None) if is_held else None
    holder, whole, unfiltered = left if isinstance(left, _Left) else _Left(-1, ResponseDecision.PASS, frozenset())
    seen = _changed(response, whole)
    for judge in judges:
        assert judge.on_head is not None
        if judge.number < holder:
            continue
        has_body = is_held or whole.kind == "replace"
        if is_held and (left is None or judge.number == holder):
            # without a note this chain has not held it
            if judge.on_body is None:
                continue
            decision = yield judge.on_body(seen)
        else:
            decision = yield judge.on_head(seen._shown(False, tuple(notes.items())) if has_body else seen)
            if type(decision) is ResponseDecision and decision.kind == "hold":
                if judge.on_body is None:
                    raise DecisionValueError(f"HOLD: member {judge.number} of the Chain has no on_response_body")
                notes |= decision._note
                if not has_body:
                    notes[key] = _Left(judge.number, whole, unfiltered)
                    return response_decision.held(tuple(notes.items()))
                seen = seen._shown(True, tuple(notes.items()))
                decision = yield judge.on_body(seen)
        if type(decision) is not ResponseDecision or decision.kind == "block":
            # what is no decision is the proxy's to refuse
            return decision
        if decision.kind == "hold":
            raise DecisionValueError("HOLD: the body is here, and no more of it will come")
        notes |= decision._note
        if decision.kind == "unfiltered" or decision._is_unfiltered:
            unfiltered |= {judge.number}
        if decision.kind in ("change", "replace"):
            seen = _changed(seen, decision)
            whole = decision if whole.kind == "pass" else response_decision.merged(whole, decision)
    # nobody waits for the body any more
    notes = {each: note for each, note in notes.items() if not (isinstance(note, _Left) and note.holder >= 0)}
    wanted = {judge.number for judge in filtering}
    is_unfiltered = bool(unfiltered) and wanted <= unfiltered
    if unfiltered & wanted and not is_unfiltered:
        notes[key] = _Left(-1, ResponseDecision.PASS, unfiltered)
    return response_decision.noted(whole, is_unfiltered, tuple(notes.items()))


def _changed(response: RawResponse, decision: ResponseDecision) -> RawResponse:
    try:
        return response.changed(decision)
    except ValueError as error:
        # whatever failure_policy says: without the change it is not the response that the member let go
        raise DecisionValueError(f"a change by a member of the Chain cannot be applied: {error}") from error


def _decided_chunk(key: object, judges: tuple[_Judge, ...], chunk: StreamChunk, first: Any = None) -> Round:
    """`first`: what the first of `judges` has returned already."""
    left = dict(chunk._note or ()).get(key)
    unfiltered = left.unfiltered if isinstance(left, _Left) else frozenset()
    # what is sent in place of the chunk; the first one None: the chunk itself, as it came
    payloads: list[bytes | SseEvent | None] = [None]
    chunks = [chunk]
    for judge in judges:
        assert judge.on_chunk is not None
        if chunk.frame_kind not in judge.kinds or judge.number in unfiltered:
            continue
        next_payloads: list[bytes | SseEvent | None] = []
        next_chunks: list[StreamChunk] = []
        for payload, each in zip(payloads, chunks, strict=True):
            decision = yield judge.on_chunk(each) if first is None or judge is not judges[0] else first
            if decision is ChunkDecision.PASS:
                next_payloads.append(payload)
                next_chunks.append(each)
                continue
            if type(decision) is not ChunkDecision or decision.kind == "end":
                return decision
            try:
                next_chunks += each.changed(decision)
            except ValueError as error:
                raise DecisionValueError(f"a replacement by a member of the Chain cannot be applied: {error}") from error
            next_payloads += [payload] if decision.kind == "pass" else _in_place(decision.payloads, payload, each)
        payloads, chunks = next_payloads, next_chunks
        if not payloads:
            return ChunkDecision.DROP
    if payloads == [None]:
        return ChunkDecision.PASS
    return ChunkDecision.replace(*payloads)  # type: ignore[arg-type]


def _in_place(payloads: tuple[bytes | SseEvent, ...], before: bytes | SseEvent | None, chunk: StreamChunk) -> list[bytes | SseEvent | None]:
    """Return the payloads that a member gives in place of another one, each so that it means the same at any place.

    Of a stream of events the first one of bytes has the lines of what it replaces, and those behind it none.
    """
    if chunk.frame_kind is not FrameKind.SSE_DATA:
        return list(payloads)
    made: list[bytes | SseEvent | None] = []
    for payload in payloads:
        if isinstance(payload, bytes) and (made or isinstance(before, SseEvent)):
            payload = SseEvent(payload) if made or not isinstance(before, SseEvent) else dataclasses.replace(before, data=payload)
        made.append(payload)
    return made


def _decided_connect(members: tuple[Method, ...], target: object) -> Round:
    chosen: ConnectDecision | None = None
    for member in members:
        decision = yield member(target)
        if decision is None:
            continue
        if type(decision) is not ConnectDecision or decision.action is Action.BLOCK:
            return decision
        chosen = chosen or decision
    return chosen


def _decided_interception(members: tuple[Method, ...], host: str, process_info: object) -> Round:
    for member in members:
        answer = yield member(host, process_info)
        if answer is not True:
            return answer
    return True


def _observed(members: tuple[Method, ...], *arguments: object) -> Round:
    failure: Exception | None = None
    for member in members:
        try:
            yield member(*arguments)
        except Exception as error:
            # the others are told all the same
            failure = failure or error
    if failure is not None:
        raise failure


_ROUNDS: dict[str, Callable[..., Round]] = {
    "on_request": _decided_request,
    "on_connect": _decided_connect,
    "should_intercept_tls": _decided_interception,
}
