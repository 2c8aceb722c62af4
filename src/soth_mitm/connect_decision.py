"""What a handler may say of a destination before anything is resolved or dialled for it, and what it is asked about."""

from typing import ClassVar, NoReturn, final

import msgspec

from soth_mitm.addresses import format_host_port
from soth_mitm.connection import ConnectionMeta
from soth_mitm.message_parts import checked
from soth_mitm.policy import Action


@final
class ConnectDecision:
    """The answer of `on_connect`. Immutable; `INTERCEPT`, `TUNNEL`, or made by `block`, never by calling the class.

    `INTERCEPT` has every request go through the handler, `TUNNEL` has the bytes relayed unread. `action` tells the three apart; `reason`
    and `status` are those of the answer to the client, and empty and 0 for the first two.
    """

    __slots__ = ("action", "reason", "status")

    action: Action
    reason: str
    status: int

    INTERCEPT: ClassVar["ConnectDecision"]
    TUNNEL: ClassVar["ConnectDecision"]

    def __init__(self) -> None:
        raise TypeError("use ConnectDecision.INTERCEPT, ConnectDecision.TUNNEL or ConnectDecision.block(reason, status)")

    @staticmethod
    @checked
    def block(reason: str, status: int = 403) -> "ConnectDecision":
        """Refuse the destination: the client is answered `status`, 400 to 599, with `reason` as a line of text.

        `DecisionValueError` and `DecisionTypeError` say what is wrong, where the mistake is made; raised out of `on_connect` they block.
        """
        if not isinstance(reason, str):
            raise TypeError(f"reason: expected str, got {type(reason).__name__}")
        if isinstance(status, bool) or not isinstance(status, int):
            raise TypeError(f"status: expected a whole number, got {status!r}")
        if not 400 <= status <= 599:
            raise ValueError(f"status: expected an error from 400 to 599, got {status}")
        return _make(Action.BLOCK, reason, int(status))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a ConnectDecision cannot be changed; make another one (tried to set {name!r})")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a ConnectDecision cannot be changed (tried to delete {name!r})")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ConnectDecision):
            return NotImplemented
        return (self.action, self.reason, self.status) == (other.action, other.reason, other.status)

    def __hash__(self) -> int:
        return hash((self.action, self.reason, self.status))

    def __reduce__(self) -> str | tuple[object, ...]:
        if self.action is Action.BLOCK:
            return (ConnectDecision.block, (self.reason, self.status))
        return f"ConnectDecision.{self.action.name}"

    def __repr__(self) -> str:
        if self.action is not Action.BLOCK:
            return f"ConnectDecision.{self.action.name}"
        return f"ConnectDecision.block({self.reason!r}{'' if self.status == 403 else f', {self.status}'})"


def _make(action: Action, reason: str, status: int) -> ConnectDecision:
    decision = object.__new__(ConnectDecision)
    for name, value in (("action", action), ("reason", reason), ("status", status)):
        object.__setattr__(decision, name, value)
    return decision


ConnectDecision.INTERCEPT = _make(Action.INTERCEPT, "", 0)
ConnectDecision.TUNNEL = _make(Action.TUNNEL, "", 0)


class ConnectTarget(msgspec.Struct, frozen=True, gc=False):
    """A destination that a client asks for, and that nothing was resolved or dialled for."""

    host: str
    """The host in lower case, an international name in its `xn--` form, an IPv6 address without brackets."""
    port: int
    """The port."""
    scheme: str | None
    """`"http"` or `"https"` of a request that is to be forwarded, or of what asks for another name inside a connection; None for a
    CONNECT, whose content is not known yet."""
    meta: ConnectionMeta
    """The client's connection, with its `process_info` and this `target`; of another name inside a connection, with the target of that."""
    policy: ConnectDecision
    """What the policy will do if the handler leaves it to the policy."""
    policy_reason: str
    """Why: `interception_scope_match`, `passthrough_unlisted` or `destination_not_allowed`."""

    def __str__(self) -> str:
        return format_host_port(self.host, self.port)
