"""What is decided about the destinations that one client asks for: by the policy, by `on_connect` and by `should_intercept_tls`.

Requests that name destinations of their own are judged in `routing`.
"""

from typing import NamedTuple

from soth_mitm.addresses import format_host_port, normalise_host
from soth_mitm.connect_decision import ConnectDecision, ConnectTarget
from soth_mitm.connection import ConnectionMeta
from soth_mitm.errors import WireError
from soth_mitm.policy import Action, Decision
from soth_mitm.proxy.client import Client
from soth_mitm.proxy.client_reader import ClientGone
from soth_mitm.proxy.learning import Trial

NOT_TOLD_TO_INTERCEPT = ConnectDecision.block(
    "should_intercept_tls of the policy handler failed and handler.failure_policy is block, or it answered neither True nor False"
)


class Verdict(NamedTuple):
    """What happens to a target. `block` is set when it is blocked; `why` is the reason of a tunnel, `by` who decided, for observers."""

    action: Action
    block: ConnectDecision | None = None
    why: str = ""
    by: str = "policy"


class Decisions:
    """The decisions about one client's destinations. Nothing is resolved or dialled for them."""

    __slots__ = ("_client", "is_told_to_intercept")

    def __init__(self, client: Client) -> None:
        self._client = client
        self.is_told_to_intercept = False
        """`on_connect` answered INTERCEPT, which no refusal of our certificate undoes."""

    async def of_target(self, host: str, port: int) -> Verdict:
        """Decide about the target of a CONNECT. `WireError` if it is this proxy itself."""
        generation = self._client.generation
        decision = generation.policy.decide(host, port)
        answer = await self._ask_to_connect(host, port, decision)
        self.is_told_to_intercept = answer is ConnectDecision.INTERCEPT
        action = decision.action if answer is None else answer.action
        by = "policy" if answer is None else "handler"
        if action is Action.BLOCK:
            return Verdict(action, answer or ConnectDecision.block(decision.text(host, port)), by=by)
        if action is Action.INTERCEPT and answer is None and generation.calls.is_asked_to_intercept:
            asking = generation.calls.should_intercept(host, self._client.meta.process_info)
            wanted = await self._client.reader.in_task(asking)
            if wanted is None:
                return Verdict(Action.BLOCK, NOT_TOLD_TO_INTERCEPT, by="handler")
            if not wanted:
                action = Action.TUNNEL
        if action is Action.INTERCEPT:
            self._refuse_ourselves(host, port)
            return Verdict(action, by=by)
        if answer is None and decision.action is Action.TUNNEL:
            return Verdict(action, why="unlisted")
        forbidden = forbidden_tunnel(self._client, host, port)
        return Verdict(action, why="handler", by="handler") if forbidden is None else Verdict(Action.BLOCK, forbidden)

    def _refuse_ourselves(self, host: str, port: int) -> None:
        own = self._client.generation.own_by_name(host, port)
        if own is not None:
            raise WireError(f"{format_host_port(host, port)} {own.text}", side="client", status=own.status)

    async def of_name_inside(self, name: str, port: int) -> ConnectDecision | None:
        """Return why TLS inside an intercepted connection may not ask for another name than the target's, None if it may."""
        policy = self._client.generation.policy
        objection = policy.objection(name, port)
        if objection is not None:
            return ConnectDecision.block(f"{objection.text(name, port)}; the TLS handshake asks for that name")
        if not policy.checks_names:
            return None
        answer = await self._ask_to_connect(name, port, policy.decide(name, port), "https")
        if answer is ConnectDecision.INTERCEPT:
            self.is_told_to_intercept = True
        return answer if answer is not None and answer.action is Action.BLOCK else None

    async def of_name_in_tunnel(self, asked: str, host: str, port: int) -> str | None:
        """Return why TLS in a tunnel to `host` may not ask for a name, None if it may."""
        refusal = f"the tunnel is to {format_host_port(host, port)}, and its TLS asks for {asked}, which"
        try:
            name = normalise_host(asked)
        except ValueError:
            return f"{refusal} is no name (interception.check_names)"
        if name == host:
            return None
        policy = self._client.generation.policy
        if not policy.may_be_tunnelled_to(name, port):
            return f"{refusal} the policy does not tunnel (interception.check_names)"
        if policy.checks_names:
            answer = await self._ask_to_connect(name, port, policy.decide(name, port), "https")
            if answer is not None and answer is not ConnectDecision.TUNNEL:
                return f"{refusal} on_connect does not let through (interception.check_names)"
        return None

    async def _ask_to_connect(self, host: str, port: int, decision: Decision, scheme: str | None = None) -> ConnectDecision | None:
        """What `on_connect` says of the target of a CONNECT, or of the name that TLS inside asks for; None leaves it to the policy."""
        generation, reader = self._client.generation, self._client.reader
        if not generation.calls.is_asked_to_connect or generation.policy.is_final(decision):
            return None
        asked = generation.calls.ask_to_connect(connect_target(scheme, host, port, self._client.meta, decision))
        if asked.future is not None:
            asked.future.add_done_callback(reader.wake)
            try:
                while not asked.future.done():
                    if reader.over:
                        raise ClientGone
                    await reader.changed()
            finally:
                asked.abandon()
        return generation.calls.connect_answer(asked.result, asked.error)

    def lets_unknown_pass(self, host: str, port: int) -> bool:
        """Tell whether what can be neither TLS nor HTTP is tunnelled to an intercepted target."""
        generation = self._client.generation
        return generation.config.interception.unknown_protocol == "tunnel" and not generation.policy.must_intercept(host, port)

    def may_dial_ahead(self) -> bool:
        """Tell whether an upstream may be reached before a request is allowed: where no handler decides about requests."""
        generation = self._client.generation
        return not (generation.settings.enforce and generation.calls.hooks.on_request)

    def begin_trial(self, name: str) -> Trial | None:
        """Return what learns how the client takes our certificate for `name`.

        None: its program keeps refusing that certificate, so that its TLS is tunnelled.
        """
        return self._client.generation.resources.learning.begin(self._client.meta, name)


def forbidden_tunnel(client: Client, host: str, port: int) -> ConnectDecision | None:
    """Return why the handler may not have what it wants, requests that it does not see; None if it may."""
    forbidden_by = client.generation.policy.tunnel_forbidden_by(host, port)
    if forbidden_by is None:
        return None
    return ConnectDecision.block(f"the handler wants a tunnel to {format_host_port(host, port)}, which {forbidden_by} forbids")


def connect_target(scheme: str | None, host: str, port: int, meta: ConnectionMeta, decision: Decision) -> ConnectTarget:
    """Return what `on_connect` is asked about."""
    if decision.action is Action.BLOCK:
        policy = ConnectDecision.block(decision.text(host, port))
    else:
        policy = ConnectDecision.INTERCEPT if decision.action is Action.INTERCEPT else ConnectDecision.TUNNEL
    return ConnectTarget(host, port, scheme, meta, policy, decision.reason)
