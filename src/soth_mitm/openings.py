"""What a configuration leaves open for a target, key by key: for `soth-mitm check-policy`, which tells people.

docs/enforcement.md has the same keys, with more words.
"""

from typing import NamedTuple

from soth_mitm.config import MitmConfig
from soth_mitm.destinations import DestinationMap, DestinationPattern, parse_redirect
from soth_mitm.policy import Action, Policy

_EXPOSED = " in clear, and no certificate is verified"


class Opening(NamedTuple):
    """A key, and what it lets happen to a connection."""

    key: str
    text: str


def openings(config: MitmConfig, policy: Policy, host: str, port: int) -> list[Opening]:
    """Return what may pass uninspected, unverified or against a decision on connections to a normalised target."""
    action = policy.decide(host, port).action
    found = []
    if action is Action.TUNNEL:
        found.append(Opening("interception.passthrough_unlisted", "nothing of it is read, and no request of it is decided on"))
    if action is Action.INTERCEPT:
        found += _in_interception(config, policy, host, port)
    if (
        action is not Action.BLOCK
        and (there := DestinationMap(map(parse_redirect, config.upstream.connect_to)).get(host, port)) is not None
    ):
        found.append(Opening("upstream.connect_to", f"the connection goes to {there}{_EXPOSED if there.is_exposed else ''}"))
    return found


def _in_interception(config: MitmConfig, policy: Policy, host: str, port: int) -> list[Opening]:
    found = []
    if config.intercept_mode == "monitor":
        found.append(Opening("intercept_mode", "requests go on before the handler has decided, and no block is applied"))
    elif config.handler.failure_policy == "allow":
        found.append(Opening("handler.failure_policy", "a request goes on when the handler fails or is late"))
    if not policy.must_intercept(host, port):
        found.append(Opening("interception.must_intercept", "a handler that says so has it tunnelled; list it there to forbid that"))
        if config.tls.learn_bypass:
            times = config.tls.bypass_after_failures
            found.append(Opening("tls.learn_bypass", f"it is tunnelled for a program that has refused our certificate {times} times"))
        if config.interception.unknown_protocol == "tunnel":
            found.append(Opening("interception.unknown_protocol", "what is neither TLS nor HTTP is tunnelled"))
    if config.interception.check_names == "off":
        found.append(Opening("interception.check_names", "Host and SNI may name destinations that the policy blocks"))
    if not config.body.buffer_request_bodies:
        found.append(Opening("body.buffer_request_bodies", "the handler decides on the head alone, and sees no body"))
    elif config.body.incomplete == "show":
        found.append(Opening("body.incomplete", "the handler may be asked with a part of the body only (request.body_problem)"))
    if not config.upstream.verify_upstream_tls:
        found.append(Opening("upstream.verify_upstream_tls", "whoever answers in the place of the server is taken for it"))
    elif DestinationMap((DestinationPattern.parse(text), True) for text in config.upstream.insecure_destinations).get(host, port):
        found.append(Opening("upstream.insecure_destinations", "whoever answers in the place of the server is taken for it"))
    return found
