"""Which destinations are intercepted, tunnelled or blocked."""

import enum
from typing import NamedTuple

from soth_mitm.addresses import format_host_port, normalise_host
from soth_mitm.config import MitmConfig
from soth_mitm.destinations import DestinationMap, DestinationPattern


class Action(enum.Enum):
    """What happens to a connection."""

    INTERCEPT = "intercept"
    TUNNEL = "tunnel"
    BLOCK = "block"


class Decision(NamedTuple):
    """What the policy says of a target, and why; the reason is an attribute of events."""

    action: Action
    reason: str

    def text(self, host: str, port: int) -> str:
        """Return the reason for people: the body of a 403, which says what to change."""
        where = format_host_port(host, port)
        if self is _BLOCKED:
            return f"{self.reason}: {where} matches a pattern of interception.blocked"
        return f"{self.reason}: {where} is not listed in interception.destinations, and interception.passthrough_unlisted is false"


_BLOCKED = Decision(Action.BLOCK, "destination_blocked")
_LISTED = Decision(Action.INTERCEPT, "interception_scope_match")
_UNLISTED_TUNNELLED = Decision(Action.TUNNEL, "passthrough_unlisted")
_UNLISTED_BLOCKED = Decision(Action.BLOCK, "destination_not_allowed")


class Explanation(NamedTuple):
    """A decision, the key that it comes from, and the pattern in that key, where one matches."""

    decision: Decision
    key: str
    pattern: DestinationPattern | None


class Policy:
    """The decisions of one snapshot of the configuration; later changes of that configuration do not reach it."""

    __slots__ = ("_blocked", "_blocks_some", "_check_names", "_destinations", "_is_strict", "_must_intercept", "_unlisted")

    def __init__(self, config: MitmConfig) -> None:
        """Compile the patterns of a validated configuration."""
        self._blocked = _compile(config.interception.blocked)
        self._blocks_some = bool(config.interception.blocked)
        self._check_names = config.interception.check_names == "strict"
        self._destinations = _compile(config.interception.destinations)
        self._must_intercept = _compile(config.interception.must_intercept)
        self._is_strict = config.preset == "strict"
        self._unlisted = _UNLISTED_TUNNELLED if config.interception.passthrough_unlisted else _UNLISTED_BLOCKED

    def decide(self, host: str, port: int) -> Decision:
        """Return the decision for a target in any spelling; `ValueError` if `host` is none, which is the client's error."""
        name = normalise_host(host)
        if self._blocked.get(name, port) is not None:
            return _BLOCKED
        return self._unlisted if self._destinations.get(name, port) is None else _LISTED

    def is_final(self, decision: Decision) -> bool:
        """Tell whether no handler is asked about a target with that decision."""
        return decision is _BLOCKED

    @property
    def checks_names(self) -> bool:
        """Whether `interception.check_names` is strict."""
        return self._check_names

    def objection(self, host: str, port: int) -> Decision | None:
        """Return why a name may not be asked for, in SNI or Host, on a connection to another target; None if it may.

        It may where the policy would let a connection to it through. `interception.check_names` turns that off, but for the names of
        `interception.blocked`.
        """
        decision = self.decide(host, port)
        if decision.action is not Action.BLOCK or not (self._check_names or decision is _BLOCKED):
            return None
        return decision

    @property
    def looks_into_tunnels(self) -> bool:
        """Whether there are names that TLS inside a tunnel to another target may not ask for."""
        return self._check_names or self._blocks_some

    def may_be_tunnelled_to(self, name: str, port: int) -> bool:
        """Tell whether TLS inside a tunnel to another target may ask for a name: the policy would tunnel a connection to it as well.

        `interception.check_names` turns that off, but for the names of `interception.blocked`.
        """
        decision = self.decide(name, port)
        return decision.action is Action.TUNNEL or not (self._check_names or decision is _BLOCKED)

    def must_intercept(self, host: str, port: int) -> bool:
        """Tell whether a target may never be tunnelled, whatever a client, a handler or a protocol does."""
        return self.tunnel_forbidden_by(host, port) is not None

    def tunnel_forbidden_by(self, host: str, port: int) -> str | None:
        """Return what forbids to tunnel a target, whoever wants that, in the words of the configuration; None if nothing does."""
        name = normalise_host(host)
        pattern = self._must_intercept.get(name, port)
        if pattern is not None:
            return f"`{pattern}` in interception.must_intercept"
        return '`preset = "strict"`' if self._is_strict else None

    def pattern(self, host: str, port: int) -> DestinationPattern | None:
        """Return the pattern that decides about a target, None where none matches; `ValueError` if `host` is none."""
        name = normalise_host(host)
        return self._blocked.get(name, port) or self._destinations.get(name, port)

    def explain(self, host: str, port: int) -> "Explanation":
        """Return the decision for a target with the key and the pattern that it comes from; `ValueError` if `host` is none."""
        name, decision = normalise_host(host), self.decide(host, port)
        if decision is _BLOCKED:
            return Explanation(decision, "interception.blocked", self._blocked.get(name, port))
        if decision is _LISTED:
            return Explanation(decision, "interception.destinations", self._destinations.get(name, port))
        return Explanation(decision, "interception.passthrough_unlisted", None)


def _compile(patterns: list[str]) -> DestinationMap[DestinationPattern]:
    parsed = (DestinationPattern.parse(text) for text in patterns)
    return DestinationMap((pattern, pattern) for pattern in parsed)
