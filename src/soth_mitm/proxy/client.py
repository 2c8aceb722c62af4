"""One client connection: its first bytes, the policy, TLS, and who takes it over.

Everything here happens once per connection. Requests are the data plane's: an `Exchange` or a `Tunnel` has the endpoint from the moment
when `_converse` or `_tunnel` starts it.
"""

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NoReturn

from msgspec.structs import replace

from soth_mitm._dataplane.exchange.exchange import Exchange
from soth_mitm._dataplane.exchange.flow import Route
from soth_mitm._dataplane.exchange.relay import Tunnel
from soth_mitm._dataplane.http1.encoder import own_explanation
from soth_mitm._dataplane.http1.framing import BodyReader
from soth_mitm._dataplane.http1.head_parser import HeadReader
from soth_mitm._dataplane.transport.lingering_close import linger_and_close
from soth_mitm._dataplane.wire.head import Head
from soth_mitm.addresses import DEFAULT_PORTS, format_authority, format_host_port, normalise_host, parse_authority, parse_target
from soth_mitm.connect_decision import ConnectDecision, ConnectTarget
from soth_mitm.connection import ConnectionMeta, ProcessInfo, SocketFamily
from soth_mitm.errors import WireError
from soth_mitm.escaping import get_logger
from soth_mitm.observe.observation import EventKind
from soth_mitm.policy import Action, Decision
from soth_mitm.proxy.arrival import Arrival, ConnectionOver
from soth_mitm.proxy.calls import HandlerFailed
from soth_mitm.proxy.client_tls import (
    ALERT_DECODE_ERROR,
    ALERT_PROTOCOL_VERSION,
    ALERT_UNEXPECTED_MESSAGE,
    ALERT_UNRECOGNIZED_NAME,
    ClientTls,
    GoodbyeSaid,
)
from soth_mitm.proxy.detached import detached
from soth_mitm.proxy.generation import Generation
from soth_mitm.proxy.inside import InsideRouter
from soth_mitm.proxy.outbound.origin import Origin, abandon
from soth_mitm.proxy.protocols import ClientEndpoint
from soth_mitm.proxy.tls_facts import UpstreamFacts, with_upstream
from soth_mitm.tls.client_hello import (
    NEED_MORE,
    ClientHello,
    MalformedHello,
    may_become,
    parse_client_hello,
    parse_tunnelled_hello,
    sniff,
)

log = get_logger("soth_mitm.proxy")

ESTABLISHED = b"HTTP/1.1 200 Connection Established\r\n\r\n"
# Enough to tell CONNECT from everything else
METHOD_BYTES = len(b"CONNECT ")
TLS_RECORD, SOCKS4, SOCKS5 = 0x16, 4, 5
NOT_HTTP = (b"\x16", b"\x04", b"\x05")

# How many answers of on_connect one client connection remembers.
MAX_ANSWERS = 256
NOT_TOLD_TO_INTERCEPT = ConnectDecision.block(
    "should_intercept_tls of the policy handler failed and handler.failure_policy is block, or it answered neither True nor False"
)


class ClientConnection:
    """One accepted connection under the generation of the proxy's configuration that it began with."""

    def __init__(self, generation: Generation, endpoint: ClientEndpoint, family: SocketFamily) -> None:
        self.generation = self._generation = generation
        self._snapshot = generation.snapshot
        self._config = self._snapshot.config
        self._calls = self._snapshot.calls
        self._settings = self._snapshot.settings
        self._endpoint = endpoint
        self._arrival = Arrival(self._snapshot.loop)
        self._arrival.attach(endpoint)
        self._taken_over: Exchange | Tunnel | None = None
        self._was_taken_over = False
        # as a tunnel
        self._is_shown = False
        self._tls: ClientTls | None = None
        self._process: ProcessInfo | None = None
        # the target's host as the CONNECT spells it
        self._spelling = ""
        # on_connect answered INTERCEPT, which no refusal of our certificate undoes
        self._is_told_to_intercept = False
        # what on_connect said of the destinations of forwarded requests, and of other names inside
        self._answers: dict[tuple[str, str, int], ConnectDecision | None] = {}
        self.meta = ConnectionMeta(uuid.uuid4(), family)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`, which awaits `serve` and `report_end` and nothing else."""
        self._arrival.run(work)

    async def serve(self) -> None:
        """Serve the connection to its end; every hook of it has returned when this returns. Raises nothing but cancellation."""
        try:
            if self._calls.hears_of_connections:
                await self._identify()
                self.meta = replace(self.meta, process_info=self._process)
                await self._arrival.apart(self._calls.opened(self.meta))
                data = await self._first_bytes()
            else:
                # later is cheaper: by now it is known which of its program's connections this one replaces
                await self._first_bytes()
                await self._identify()
                # unless they are gone, and the client with them
                data = await self._arrival.read_more(0)
            head = await self._connect_head(data)
            if head is None:
                self._forward()
            else:
                await self._connect_request(head)
            if self._was_taken_over:
                # the last bytes of a tunnel have their own bound
                while self._taken_over is not None or not self._endpoint.gone:
                    await self._arrival.changed()
                if self._tls is not None and not self._arrival.draining:
                    await self._tls.look_back()
        except (ConnectionOver, HandlerFailed):
            self._endpoint.close()
        except GoodbyeSaid:
            pass
        except WireError as error:
            self._settings.counters.requests_refused += error.status in (400, 408, 431)
            self._answer(error.status, str(error))
            detached(error)
        await self._leave()

    async def report_end(self) -> None:
        """Tell the handler that the connection is over."""
        if not self._calls.hears_of_ends:
            return
        try:
            await self._arrival.apart(self._calls.closed(self.meta.connection_id))
        except HandlerFailed:
            log.debug("on_connection_close failed; the connection is closed already")

    def drain(self) -> None:
        """Let what is under way finish, and close."""
        self._arrival.draining = True
        if self._taken_over is not None:
            self._taken_over.drain()
        elif self._arrival.is_idle:
            self._endpoint.close()

    def abort(self) -> None:
        """Cut the connection now."""
        if self._taken_over is not None:
            self._taken_over.abort()
        self._endpoint.abort()

    def end(self) -> None:
        """Cancel what hangs although the connection was cut: user code, or a dial."""
        self._arrival.end()

    # --- who is it

    async def _identify(self) -> None:
        lookup = self._generation.attribution
        if lookup is None:
            return
        family = self.meta.socket_family
        self._process = lookup.recall(family) or await self._arrival.apart(lookup.find(self._endpoint, family))

    # --- the first head

    async def _first_bytes(self) -> bytes:
        try:
            with self._arrival.within(self._snapshot.client_idle):
                return await self._arrival.read_more(0)
        except TimeoutError:
            raise ConnectionOver from None

    async def _connect_head(self, data: bytes) -> Head | None:
        """Return the head of a CONNECT, taken off what has come; None, with nothing taken, when it begins otherwise."""
        reader = HeadReader(True, self._config.max_http_head_bytes, self._config.max_header_fields)
        parsed = None
        try:
            with self._arrival.within(self._snapshot.client_head):
                # an empty line before the first request line is allowed (RFC 9112 section 2.2)
                while len(start := data.removeprefix(b"\r\n")) < METHOD_BYTES and b"\n" not in start and data[:1] not in NOT_HTTP:
                    data = await self._arrival.read_more(len(data))
                if not start.startswith(b"CONNECT "):
                    return None
                while (parsed := reader.feed(data)) is None:
                    data = await self._arrival.read_more(len(data))
        except TimeoutError:
            raise WireError("the request head did not arrive in time (timeouts.client_head_ms)", side="client", status=408) from None
        head, used = parsed
        # refuses a CONNECT that announces content
        BodyReader.of_request(head)
        self._arrival.consume(used)
        return head

    def _forward(self) -> None:
        """Requests in absolute-form, or nothing that we speak."""
        spoken = {TLS_RECORD: "TLS", SOCKS4: "SOCKS", SOCKS5: "SOCKS"}.get(self._arrival.peek()[0])
        if spoken is not None:
            raise WireError(f"this is an HTTP proxy and was spoken to in {spoken}; use an http:// proxy URL", side="client", status=400)
        self.meta = replace(self.meta, process_info=self._process)
        self._converse(Exchange(self._settings, self._endpoint, self._ended, router=self._route))

    def _route(self, scheme: str | None, authority: bytes) -> Route:
        """Where a request goes that names `authority`; asked by the exchange when that changes."""
        text = authority.decode("latin-1")
        if scheme is None and not self._generation.is_unix(self.meta.socket_family):
            return self._refusal("http", text, 400, "this is a proxy: send the whole URL in the request line (absolute-form), or CONNECT")
        scheme = scheme or "http"
        try:
            host, port = parse_authority(text, DEFAULT_PORTS[scheme])
        except ValueError as error:
            return self._refusal(scheme, text, 400, f"the target `{text}` {error}")
        decision = self._snapshot.policy.decide(host, port)
        key = (scheme, host, port)
        if not self._calls.is_asked_to_connect or self._snapshot.policy.is_final(decision):
            return self._forwarding(key, decision, None)
        if key in self._answers:
            return self._forwarding(key, decision, self._answers[key])
        question = _target(scheme, host, port, replace(self.meta, target=(host, port)), decision)
        go_on = partial(self._forwarding, key, decision)
        return Route(None, self.meta, scheme, text, observed=False, question=question, on_answer=partial(self._answered, key, go_on))

    def _answered(
        self,
        key: tuple[str, str, int],
        go_on: Callable[[ConnectDecision | None], Route],
        answer: object,
        error: BaseException | None,
    ) -> Route | None:
        """Return where requests go about whose destination `on_connect` returned `answer` or failed; None to cut the connection."""
        try:
            verdict = self._calls.connect_answer(answer, error)
        except HandlerFailed:
            return None
        if error is None and verdict is answer:
            if len(self._answers) >= MAX_ANSWERS:
                self._answers.clear()
            self._answers[key] = verdict
        return go_on(verdict)

    def _forwarding(self, key: tuple[str, str, int], decision: Decision, verdict: ConnectDecision | None) -> Route:
        """Return where requests to a destination go, by the handler's `verdict`, or, without one, by the policy's `decision`."""
        scheme, host, port = key
        authority = format_authority(host, port, scheme)
        if verdict is ConnectDecision.TUNNEL:
            verdict = self._forbidden_tunnel(host, port) or verdict
        action = decision.action if verdict is None else verdict.action
        if action is Action.BLOCK:
            block = verdict or ConnectDecision.block(decision.text(host, port))
            return self._refusal(scheme, authority, block.status, block.reason)
        meta = replace(self.meta, target=(host, port))
        pool = self._generation.upstreams.pool(self._generation.origin(host, port, host if scheme == "https" else None))
        return Route(pool, meta, scheme, authority, observed=action is Action.INTERCEPT, on_facts=with_upstream)

    def _refusal(self, scheme: str, authority: str, status: int, reason: str) -> Route:
        return Route(None, self.meta, scheme, authority, observed=False, status=status, reason=reason.encode("utf-8", "backslashreplace"))

    # --- CONNECT

    async def _connect_request(self, head: Head) -> None:
        try:
            host, port = parse_target(head.target)
        except ValueError as error:
            raise WireError(f"the target `{head.target}` {error}", side="client", status=400) from None
        self._spelling = head.target.rpartition(":")[0]
        self.meta = replace(self.meta, process_info=self._process, target=(host, port))
        decision = self._snapshot.policy.decide(host, port)
        answer = await self._ask_to_connect(host, port, decision)
        self._is_told_to_intercept = answer is ConnectDecision.INTERCEPT
        action = decision.action if answer is None else answer.action
        if action is Action.BLOCK:
            await self._refuse_connect(host, port, answer or ConnectDecision.block(decision.text(host, port)))
            return
        if action is Action.INTERCEPT and answer is None and self._calls.is_asked_to_intercept:
            wanted = await self._arrival.apart(self._calls.should_intercept(host, self._process))
            if wanted is None:
                await self._refuse_connect(host, port, NOT_TOLD_TO_INTERCEPT)
                return
            if not wanted:
                action = Action.TUNNEL
        if action is not Action.TUNNEL:
            await self._intercept(host, port)
        elif answer is None and decision.action is Action.TUNNEL:
            await self._tunnel(host, port, ESTABLISHED, "unlisted")
        elif (forbidden := self._forbidden_tunnel(host, port)) is not None:
            await self._refuse_connect(host, port, forbidden)
        else:
            await self._tunnel(host, port, ESTABLISHED, "handler")

    def _forbidden_tunnel(self, host: str, port: int) -> ConnectDecision | None:
        """Why the handler may not have what it wants, requests that it does not see."""
        forbidden_by = self._snapshot.policy.tunnel_forbidden_by(host, port)
        if forbidden_by is None:
            return None
        return ConnectDecision.block(f"the handler wants a tunnel to {format_host_port(host, port)}, which {forbidden_by} forbids")

    async def _ask_to_connect(self, host: str, port: int, decision: Decision, scheme: str | None = None) -> ConnectDecision | None:
        """What `on_connect` says of the target of a CONNECT, or of the name that TLS inside asks for; None leaves it to the policy."""
        if not self._calls.is_asked_to_connect or self._snapshot.policy.is_final(decision):
            return None
        asked = self._calls.ask_to_connect(_target(scheme, host, port, self.meta, decision))
        if asked.future is not None:
            asked.future.add_done_callback(self._arrival.poke)
            try:
                while not asked.future.done():
                    if self._arrival.over:
                        raise ConnectionOver
                    await self._arrival.changed()
            finally:
                asked.abandon()
        return self._calls.connect_answer(asked.result, asked.error)

    async def _refuse_connect(self, host: str, port: int, block: ConnectDecision) -> None:
        """Answer the CONNECT, or, by `interception.explain_blocks`, each request inside it. Nothing is resolved or dialled."""
        if not self._config.interception.explain_blocks:
            raise WireError(block.reason, side="client", status=block.status)
        self._observe(EventKind.REFUSED, status=block.status, cause=block.reason)
        self._endpoint.write(ESTABLISHED)
        self._tls = ClientTls(self._generation, self._endpoint, self._arrival, self.meta, host)
        kind, hello = await self._first_inner_bytes(self._tls, None)
        if hello is not None:
            name = await self._asked_name(host, self._tls, hello)
            self.meta = replace(self.meta, tls_info=await self._tls.secure(_leaf_name(name, hello.sni or self._spelling), hello, None))
        elif kind != "http":
            raise ConnectionOver
        scheme = "http" if hello is None else "https"
        route = self._refusal(scheme, format_authority(host, port, scheme), block.status, block.reason)
        self._converse(Exchange(self._settings, self._endpoint, self._ended, router=lambda *_: route))

    async def _tunnel(self, host: str, port: int, greeting: bytes, why: str, *, is_examined: bool = False) -> None:
        """Tunnel to the target; unless they are examined already, the client's first bytes are when they come."""
        tunnel = await self._dial_tunnel(host, port, greeting)
        self._take_over(tunnel)
        self._show_tunnel(why)
        if not is_examined and self._snapshot.policy.looks_into_tunnels:
            tunnel.listen()
            await self._check_name(tunnel, host, port)
        tunnel.start()

    def _show_tunnel(self, why: str) -> None:
        self._is_shown = True
        self._observe(EventKind.TUNNEL, cause=why)

    def _show_tunnel_end(self) -> None:
        if self._is_shown:
            self._is_shown = False
            self._observe(EventKind.TUNNEL_END)

    async def _dial_tunnel(self, host: str, port: int, greeting: bytes) -> Tunnel:
        dial = self._snapshot.loop.create_task(self._generation.dialler.dial(Origin(host, port)))
        try:
            # who has sent something and then ended its direction may be waiting for the answer
            upstream = await self._arrival.wait_for(dial, lambda: self._arrival.over and not self._arrival.peek())
        except (ConnectionOver, asyncio.CancelledError):
            abandon(dial)
            raise
        except WireError as error:
            if greeting:
                raise
            # the client was told 200 and has begun to speak something else than HTTP
            log.info("%s", error)
            self._observe(EventKind.REFUSED, cause=str(error))
            raise ConnectionOver from detached(error)
        if greeting:
            self._endpoint.write(greeting)
        return Tunnel(self._settings, self._endpoint, upstream, self._tunnel_ended)

    def _tunnel_ended(self) -> None:
        self._show_tunnel_end()
        self._arrival.attach(self._endpoint)
        self._ended()

    def _dismiss(self, tunnel: Tunnel) -> None:
        """Have the client back from a tunnel that has not started."""
        tunnel.dismiss()
        self._show_tunnel_end()
        if self._taken_over is tunnel:
            self._taken_over, self._was_taken_over = None, False

    async def _check_name(self, tunnel: Tunnel, host: str, port: int) -> None:
        """Wait for the client's first bytes in a tunnel; refuse TLS that asks for a name which would not be tunnelled to.

        Returns when the tunnel may start, or has ended.
        """
        tls = ClientTls(self._generation, self._endpoint, self._arrival, self.meta, host)
        try:
            hello = await self._tunnelled_hello(tunnel)
            # the handler has a deadline of its own
            refusal = None if hello is None or hello.sni is None else await self._refusal_to_tunnel(hello.sni, host, port)
            if refusal is not None and self._taken_over is tunnel:
                self._settings.counters.names_refused += 1
                raise MalformedHello(refusal, ALERT_UNRECOGNIZED_NAME)
        except MalformedHello as error:
            self._dismiss(tunnel)
            await tls.refuse_hello(error, error.alert)
        except TimeoutError as error:
            self._dismiss(tunnel)
            await tls.failed(error, shown=False)
            raise ConnectionOver from None
        except (ConnectionOver, HandlerFailed):
            self._dismiss(tunnel)
            raise

    async def _tunnelled_hello(self, tunnel: Tunnel) -> ClientHello | None:
        """Return the ClientHello that a client begins with in a tunnel; None if it begins otherwise, or the tunnel has ended."""
        while not self._arrival.peek() and not self._arrival.over and self._taken_over is tunnel:
            await self._arrival.changed()
        with self._arrival.within(self._snapshot.client_tls_handshake):
            while self._taken_over is tunnel:
                hello = parse_tunnelled_hello(self._arrival.peek())
                if hello is not NEED_MORE:
                    return hello
                if self._arrival.over:
                    if not self._arrival.peek():
                        break
                    raise MalformedHello("the client ended in the middle of its ClientHello", ALERT_DECODE_ERROR)
                await self._arrival.changed()
        return None

    async def _refusal_to_tunnel(self, asked: str, host: str, port: int) -> str | None:
        """Return why TLS in a tunnel to `host` may not ask for a name, None if it may."""
        refusal = f"the tunnel is to {format_host_port(host, port)}, and its TLS asks for {asked}, which"
        try:
            name = normalise_host(asked)
        except ValueError:
            return f"{refusal} is no name (interception.check_names)"
        if name == host:
            return None
        policy = self._snapshot.policy
        if not policy.may_be_tunnelled_to(name, port):
            return f"{refusal} the policy does not tunnel (interception.check_names)"
        if policy.checks_names:
            answer = await self._ask_to_connect(name, port, policy.decide(name, port), "https")
            if answer is not None and answer is not ConnectDecision.TUNNEL:
                return f"{refusal} on_connect does not let through (interception.check_names)"
        return None

    async def _intercept(self, host: str, port: int) -> None:
        if self._generation.is_ours_by_name(host, port):
            raise WireError(
                f"{format_host_port(host, port)} is this proxy itself; the request would come back here for ever", side="client", status=508
            )
        self._endpoint.write(ESTABLISHED)
        tls = self._tls = ClientTls(self._generation, self._endpoint, self._arrival, self.meta, host)
        kind, hello = await self._first_inner_bytes(tls, None)
        tunnel: Tunnel | None = None
        if kind == "silence" and self._lets_unknown_pass(host, port):
            # perhaps it waits for the server, which alone may speak until it is known what the client does
            tunnel = await self._dial_tunnel(host, port, b"")
            self._take_over(tunnel)
            tunnel.listen()
            kind, hello = await self._first_inner_bytes(tls, tunnel)
        if kind == "end":
            # what the upstream said last may be on its way
            assert tunnel is not None
            self._show_tunnel("unknown_protocol")
            tunnel.start()
            return
        if kind in ("other", "ssh"):
            await self._relay_unknown(host, port, tunnel)
            return
        if tunnel is not None:
            self._dismiss(tunnel)
            if tunnel.upstream_spoke and hello is not None:
                await tls.refuse_hello(
                    MalformedHello("TLS where the upstream had spoken first", ALERT_UNEXPECTED_MESSAGE), ALERT_UNEXPECTED_MESSAGE
                )
            if tunnel.upstream_spoke and kind == "http":
                raise WireError("the upstream had spoken before this request, so it does not speak HTTP", side="client", status=400)
        if kind == "silence":
            self._observe(EventKind.REFUSED, cause="the client said nothing inside its CONNECT (timeouts.client_first_bytes_ms)")
            raise ConnectionOver
        if hello is not None:
            await self._intercept_tls(host, port, tls, hello)
            return
        pool = self._generation.upstreams.pool(self._generation.origin(host, port, None))
        route = Route(pool, self.meta, "http", format_authority(host, port, "http"))
        self._converse_inside(route, host, port, host)

    async def _relay_unknown(self, host: str, port: int, tunnel: Tunnel | None) -> None:
        """The client has begun with what can be neither TLS nor HTTP."""
        self._generation.tally.unknown_protocols += 1
        if tunnel is not None:
            self._show_tunnel("unknown_protocol")
            tunnel.start()
        elif self._lets_unknown_pass(host, port):
            await self._tunnel(host, port, b"", "unknown_protocol", is_examined=True)
        else:
            key = self._snapshot.policy.tunnel_forbidden_by(host, port) or "interception.unknown_protocol is block"
            raise WireError(
                f"this CONNECT to {format_host_port(host, port)} carries neither TLS nor HTTP, and is not tunnelled ({key})",
                side="client",
                status=400,
            )

    def _lets_unknown_pass(self, host: str, port: int) -> bool:
        return self._config.interception.unknown_protocol == "tunnel" and not self._snapshot.policy.must_intercept(host, port)

    async def _first_inner_bytes(self, tls: ClientTls, tunnel: Tunnel | None) -> tuple[str, ClientHello | None]:
        """What the client begins with inside the CONNECT, and its whole ClientHello when that is TLS.

        "silence" if it says nothing in time, "end" if it ends without a word while the upstream of `tunnel` may speak.
        """
        data = b""
        try:
            with self._arrival.within(self._snapshot.client_first_bytes):
                data = await self._arrival.read_more(0)
            with self._arrival.within(self._snapshot.client_tls_handshake):
                while True:
                    kind = sniff(data)
                    if kind == "sslv2":
                        # tunnelled it might still become TLS, which nobody would see
                        raise MalformedHello("an SSLv2-style ClientHello", ALERT_PROTOCOL_VERSION)
                    if kind == "tls":
                        hello = parse_client_hello(data)
                        if hello is not NEED_MORE:
                            return kind, hello
                    elif kind is not NEED_MORE:
                        return kind, None
                    data = await self._arrival.read_more(len(data))
        except (TimeoutError, MalformedHello, ConnectionOver) as error:
            if not data and isinstance(error, TimeoutError):
                return "silence", None
            if not data and tunnel is not None and self._arrival.over:
                return "end", None
            if tunnel is not None:
                self._dismiss(tunnel)
            await self._give_up(tls, data, error)

    async def _give_up(self, tls: ClientTls, data: bytes, error: Exception) -> NoReturn:
        """The client's first bytes `data` began something, and will not become a request or a ClientHello."""
        if isinstance(error, MalformedHello):
            await tls.refuse_hello(error, error.alert)
        if not data or may_become(data) == "http":
            if isinstance(error, TimeoutError):
                raise WireError(
                    "the request line did not arrive in time (timeouts.client_tls_handshake_ms)", side="client", status=408
                ) from None
            raise error
        if isinstance(error, ConnectionOver):
            error = ConnectionResetError("the client closed the connection in the middle of its ClientHello")
        await tls.failed(error, shown=False)
        raise ConnectionOver

    # --- TLS

    async def _intercept_tls(self, host: str, port: int, tls: ClientTls, hello: ClientHello) -> None:
        name = await self._asked_name(host, tls, hello)
        authority = format_authority(host, port, "https")
        origin = self._generation.origin(host, port, name)
        facts: UpstreamFacts | None = None
        failure: WireError | None = None
        # the target was judged: nobody gets past the policy by connecting to one name and asking for another
        refused = await self._objection(name, port) if hello.sni and name != host else None
        if refused is None:
            if not self._is_told_to_intercept and tls.is_bypassed(self.meta, name):
                await self._tunnel(host, port, b"", "bypass", is_examined=True)
                return
            upstreams = self._generation.upstreams
            if upstreams.is_known(origin):
                facts = upstreams.known_facts(origin)
            elif not (self._settings.enforce and self._calls.hooks.on_request):
                try:
                    facts = await self._reach(origin)
                except WireError as error:
                    # answered inside the client's TLS, where it can be read
                    failure = detached(error)
            # else nothing is resolved or dialled before a request is allowed
        self.meta = replace(self.meta, tls_info=await tls.secure(_leaf_name(name, hello.sni or self._spelling), hello, facts))
        if refused is not None:
            self._settings.counters.names_refused += 1
            route = self._refusal("https", authority, refused.status, refused.reason)
        elif failure is not None:
            # the handler hears of the request all the same
            route = Route(None, self.meta, "https", authority, status=failure.status, reason=str(failure).encode())
        else:
            # what is remembered of the origin holds until a request has a connection
            route = Route(self._generation.upstreams.pool(origin), self.meta, "https", authority, facts=facts, on_facts=with_upstream)
        self._converse_inside(route, host, port, name)

    async def _objection(self, name: str, port: int) -> ConnectDecision | None:
        """Return why TLS inside an intercepted connection may not ask for another name than the target's, None if it may."""
        policy = self._snapshot.policy
        objection = policy.objection(name, port)
        if objection is not None:
            return ConnectDecision.block(f"{objection.text(name, port)}; the TLS handshake asks for that name")
        if not policy.checks_names:
            return None
        answer = await self._ask_to_connect(name, port, policy.decide(name, port), "https")
        if answer is ConnectDecision.INTERCEPT:
            self._is_told_to_intercept = True
        return answer if answer is not None and answer.action is Action.BLOCK else None

    async def _asked_name(self, host: str, tls: ClientTls, hello: ClientHello) -> str:
        """Return the name that the client's handshake asks for, or else that of the target."""
        if not hello.sni:
            # a zone is about this machine and in no certificate
            return host.partition("%")[0]
        try:
            return normalise_host(hello.sni)
        except ValueError as error:
            await tls.refuse_hello(ValueError(f"the server name `{hello.sni}` {error}"), ALERT_UNRECOGNIZED_NAME)

    async def _reach(self, origin: Origin) -> UpstreamFacts | None:
        """Reach `origin` for as long as the client is there to wait; the dial itself goes on, for the pool."""
        upstreams = self._generation.upstreams
        reaching = self._snapshot.loop.create_task(upstreams.reach(origin))
        try:
            return await self._arrival.wait_for(reaching, lambda: self._arrival.over)
        finally:
            reaching.cancel()

    # --- handing over, and the end

    def _take_over(self, by: Exchange | Tunnel) -> None:
        self._taken_over, self._was_taken_over = by, True

    def _converse_inside(self, route: Route, host: str, port: int, name: str) -> None:
        """Serve the requests inside an intercepted connection, which all go the way of `route`."""
        ask = self._route_inside if self._calls.is_asked_to_connect and self._snapshot.policy.checks_names else None
        router = InsideRouter(self._snapshot.policy, route, host, port, name, ask)
        self._converse(Exchange(self._settings, self._endpoint, self._ended, router=router))

    def _route_inside(self, allowed: Route, host: str, port: int) -> Route:
        """Return the way of a request that names another destination than its connection: `allowed`, unless `on_connect` refuses it."""
        key = (allowed.scheme, host, port)
        go_on = partial(self._inside, allowed)
        if key in self._answers:
            return go_on(self._answers[key])
        question = _target(allowed.scheme, host, port, self.meta, self._snapshot.policy.decide(host, port))
        return Route(
            None,
            self.meta,
            allowed.scheme,
            allowed.authority,
            observed=False,
            question=question,
            on_answer=partial(self._answered, key, go_on),
        )

    def _inside(self, allowed: Route, verdict: ConnectDecision | None) -> Route:
        # a TUNNEL changes nothing: this connection is intercepted
        if verdict is None or verdict.action is not Action.BLOCK:
            return allowed
        return self._refusal(allowed.scheme, allowed.authority, verdict.status, verdict.reason)

    def _converse(self, exchange: Exchange) -> None:
        self._take_over(exchange)
        exchange.start()
        if self._arrival.draining:
            exchange.drain()

    def _ended(self) -> None:
        # it names us: together the two would wait for the garbage collector, and the connection's buffers with them
        self._taken_over = None
        self._arrival.poke()

    def _observe(self, kind: EventKind, *, status: int = 0, cause: str = "") -> None:
        if self._snapshot.observation is not None:
            host, port = self.meta.target or ("", 0)
            self._snapshot.observation.connection(kind, self.meta, host, port, status=status, cause=cause)

    def _answer(self, status: int, text: str) -> None:
        self._observe(EventKind.REFUSED, status=status, cause=text)
        if self._endpoint.gone:
            return
        self._endpoint.write(own_explanation(status, text))
        linger_and_close(self._endpoint, self._settings)

    async def _leave(self) -> None:
        """Wait until the connection is gone, for a bounded time."""
        if self._endpoint.gone:
            return
        try:
            with self._arrival.within(self._snapshot.client_end):
                while not self._endpoint.gone:
                    await self._arrival.changed()
        except TimeoutError:
            self._endpoint.abort()


def _target(scheme: str | None, host: str, port: int, meta: ConnectionMeta, decision: Decision) -> ConnectTarget:
    if decision.action is Action.BLOCK:
        policy = ConnectDecision.block(decision.text(host, port))
    else:
        policy = ConnectDecision.INTERCEPT if decision.action is Action.INTERCEPT else ConnectDecision.TUNNEL
    return ConnectTarget(host, port, scheme, meta, policy, decision.reason)


def _leaf_name(name: str, spelling: str) -> str:
    """Return the name for a certificate: `name`, but the IPv4-mapped address that the client compares it with if `spelling` is one."""
    return spelling if ":" in spelling and ":" not in name else name
