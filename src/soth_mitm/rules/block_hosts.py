"""Block destinations."""

from soth_mitm import ConnectDecision, ConnectTarget, HandlerDecision, InterceptHandler, RawRequest
from soth_mitm.rules.matching import Hosts


class BlockHosts(InterceptHandler):
    """Blocks what its patterns match: before a name is resolved, and in requests that name it inside another connection."""

    def __init__(self, patterns: tuple[str, ...], status: int, body: str) -> None:
        self._hosts = Hosts(patterns)
        self._refusal = ConnectDecision.block(body, status)
        self._block = HandlerDecision.block(status, body)

    def on_connect(self, target: ConnectTarget) -> ConnectDecision | None:
        """Block the target of a connection."""
        return self._refusal if self._hosts.match(target.host, target.port) else None

    def on_request(self, request: RawRequest) -> HandlerDecision:
        """Block the authority that a request names."""
        return self._block if self._hosts.match_request(request) else HandlerDecision.ALLOW


def block_hosts(*patterns: str, status: int = 403, body: str = "blocked by rule") -> InterceptHandler:
    """Block destinations, as patterns: `block_hosts("*.telemetry.example:*")`. `status` is 400 to 599.

    Nothing is resolved or dialled for them. Unlike `interception.blocked`, what a handler in front of it answers is answered.
    """
    return BlockHosts(patterns, status, body)
