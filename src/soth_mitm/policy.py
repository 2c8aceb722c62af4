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
        return (
            f"{self.reason}: {format_host_port(host, port)} is not listed in interception.destinations, and "
            "interception.passthrough_unlisted is false"
        )


_LISTED = Decision(Action.INTERCEPT, "interception_scope_match")
_UNLISTED_TUNNELLED = Decision(Action.TUNNEL, "passthrough_unlisted")
_UNLISTED_BLOCKED = Decision(Action.BLOCK, "destination_not_allowed")


class Policy:
    """The decisions of one snapshot of the configuration; later changes of that configuration do not reach it."""

    __slots__ = ("_destinations", "_must_intercept", "_unlisted")

    def __init__(self, config: MitmConfig) -> None:
        """Compile the patterns of a validated configuration."""
        self._destinations = _compile(config.interception.destinations)
        self._must_intercept = _compile(config.interception.must_intercept)
        self._unlisted = _UNLISTED_TUNNELLED if config.interception.passthrough_unlisted else _UNLISTED_BLOCKED

    def decide(self, host: str, port: int) -> Decision:
        """Return the decision for a target in any spelling; `ValueError` if `host` is none, which is the client's error."""
        return self._unlisted if self._destinations.get(normalise_host(host), port) is None else _LISTED

    def must_intercept(self, host: str, port: int) -> bool:
        """Tell whether a target may never be tunnelled for a client that refuses our certificate."""
        return self._must_intercept.get(normalise_host(host), port) is not None


def _compile(patterns: list[str]) -> DestinationMap[DestinationPattern]:
    parsed = (DestinationPattern.parse(text) for text in patterns)
    return DestinationMap((pattern, pattern) for pattern in parsed)
