"""Set a header of requests or responses."""

from collections.abc import Iterable
from typing import Literal

from soth_mitm import HandlerDecision, InterceptHandler, RawRequest, RawResponse, ResponseDecision
from soth_mitm.rules.matching import Hosts


class SetRequestHeader(InterceptHandler):
    """Sets a header of requests."""

    def __init__(self, name: str, value: str, hosts: Iterable[str]) -> None:
        self._hosts = Hosts(hosts)
        self._change = HandlerDecision.forward(set={name: value})

    def on_request(self, request: RawRequest) -> HandlerDecision:
        """Set the header."""
        return self._change if self._hosts.match_request(request) else HandlerDecision.ALLOW


class SetResponseHeader(InterceptHandler):
    """Sets a header of responses."""

    def __init__(self, name: str, value: str, hosts: Iterable[str]) -> None:
        self._hosts = Hosts(hosts)
        self._change = ResponseDecision.change(set={name: value})

    def on_response_head(self, response: RawResponse) -> ResponseDecision:
        """Set the header."""
        request = response.request
        return self._change if request is not None and self._hosts.match_request(request) else ResponseDecision.PASS


def set_header(
    name: str, value: str, *, where: Literal["request", "response"] = "request", hosts: Iterable[str] = ("*:*",)
) -> InterceptHandler:
    """Set a header of each request to `hosts`, or of each response from them: every line of that name is replaced by one.

    `DecisionValueError` says that a header cannot be set, as by `HandlerDecision.forward`. A value that clients should not see, a key for
    example, belongs into `[[credentials]]`: what a rule sets is seen by every handler behind it.
    """
    if where not in ("request", "response"):
        raise ValueError(f"where: expected 'request' or 'response', got {where!r}")
    return SetRequestHeader(name, value, hosts) if where == "request" else SetResponseHeader(name, value, hosts)
