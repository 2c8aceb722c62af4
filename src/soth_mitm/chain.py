"""Several handlers as one: `Chain`."""

from collections.abc import Callable, Generator
from inspect import isawaitable
from typing import Any

from soth_mitm._dataplane.http.messages import RawRequest
from soth_mitm.connect_decision import ConnectDecision
from soth_mitm.decision import HandlerDecision, merged
from soth_mitm.errors import DecisionValueError
from soth_mitm.handler import InterceptHandler, check_handler, filter_kinds, overridden_hooks
from soth_mitm.policy import Action

Method = Callable[..., Any]
Round = Generator[Any, Any, Any]
"""Yields what each member returned, and is sent what it means, awaited where it was awaitable. Returns the answer of the chain."""


class Chain(InterceptHandler):
    """Several handlers as one. Hooks that no member has cost nothing.

    Decisions: members are asked in order, each sees the message as those before it left it. A block, an answer or an end by one of them
    ends the round, and the others are not asked. In `on_connect` a block ends it, and otherwise the first INTERCEPT or TUNNEL stands; in
    `should_intercept_tls` the first False ends it. `on_response_head`, `on_response_body` and `filter_stream_chunk` may be those of one
    member only, for each of them; `filter_kinds` is that of the member that filters. Observers: all are told, in order, also when one of
    them fails.

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
            if "filter_stream_chunk" in overridden_hooks(handler):
                self.filter_kinds = filter_kinds(handler)  # type: ignore[misc]
            for name in overridden_hooks(handler):
                hooks.setdefault(name, []).append(getattr(handler, name))
        for name, methods in hooks.items():
            if len(methods) > 1 and name in _OF_ONE_MEMBER:
                raise TypeError(
                    f"{len(methods)} members of the Chain have {name}, and a chain combines no such decisions: let one member make them"
                )
            # a member's own, where it is the only one: nothing stands between it and the proxy
            setattr(self, name, methods[0] if len(methods) == 1 else _hook(_ROUNDS.get(name, _observed), methods))

    def __repr__(self) -> str:
        return f"Chain({', '.join(map(repr, self._members))})"


def _hook(rounds: Callable[..., Round], methods: list[Method]) -> Method:
    members = tuple(methods)

    def hook(*arguments: Any) -> Any:
        return _run(rounds(members, *arguments))

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


# Decisions that are not combined: a member that holds a response would undo what one before it has changed.
_OF_ONE_MEMBER = ("on_response_head", "on_response_body", "filter_stream_chunk")
_ROUNDS: dict[str, Callable[..., Round]] = {
    "on_request": _decided_request,
    "on_connect": _decided_connect,
    "should_intercept_tls": _decided_interception,
}
