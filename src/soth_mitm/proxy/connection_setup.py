"""The way of a client connection from its first byte to the data plane: identify → inbound → decide → first bytes → TLS → session.

Everything here happens once per connection. Requests are the data plane's: an `Http1ServerConnection` or a
`Tunnel` has the endpoint from the moment when the `Session` hands it over.
"""

from collections.abc import Coroutine
from typing import Any

from soth_mitm._dataplane.exchange.relay import Tunnel
from soth_mitm._dataplane.exchange.route import Route
from soth_mitm.addresses import format_authority, format_host_port
from soth_mitm.connect_decision import ConnectDecision
from soth_mitm.connection import SocketFamily
from soth_mitm.errors import WireError
from soth_mitm.escaping import get_logger
from soth_mitm.policy import Action
from soth_mitm.proxy.alpn import HTTP1, HTTP2, client_protocol, preferred
from soth_mitm.proxy.calls import HandlerFailed
from soth_mitm.proxy.client import Client
from soth_mitm.proxy.client_reader import ClientGone, ClientRefused
from soth_mitm.proxy.client_tls import ClientTls, leaf_name
from soth_mitm.proxy.decisions import Decisions
from soth_mitm.proxy.detached import detached
from soth_mitm.proxy.first_bytes import Beginning, first_bytes, hello_in_tunnel, refuse_beginning
from soth_mitm.proxy.generation import ConfigGeneration
from soth_mitm.proxy.inbound.target import Inbound, Target
from soth_mitm.proxy.outbound.origin import Origin
from soth_mitm.proxy.protocols import ClientEndpoint
from soth_mitm.proxy.routing import ForwardRouter, InsideRouter, refusal
from soth_mitm.proxy.session import Session
from soth_mitm.proxy.tls_handshake import ALERT_UNEXPECTED_MESSAGE, ALERT_UNRECOGNIZED_NAME
from soth_mitm.proxy.tls_info import UpstreamTlsInfo, with_upstream_info
from soth_mitm.tls.client_hello import ClientHello, MalformedHello

log = get_logger("soth_mitm.proxy")


class ConnectionSetup:
    """Sets up one accepted connection, and sees to its end. `inbound` says how its client names a target."""

    def __init__(self, generation: ConfigGeneration, endpoint: ClientEndpoint, family: SocketFamily, inbound: Inbound) -> None:
        self.generation = generation
        self._inbound = inbound
        self._client = Client(generation, endpoint, family, inbound.refusal)
        self._decisions = Decisions(self._client)
        self._session = Session(self._client)
        self._tls: ClientTls | None = None

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`, which awaits `serve` and `report_end` and nothing else."""
        self._client.reader.run(work)

    async def serve(self) -> None:
        """Serve the connection to its end; every hook of it has returned when this returns. Raises nothing but cancellation."""
        client = self._client
        try:
            await self._identify()
            target = await self._inbound.target(client)
            if target is None:
                self._session.exchange(ForwardRouter(client))
            else:
                await self._connect(target)
            if await self._session.ended() and self._tls is not None and not client.reader.draining:
                await self._tls.check_abandoned()
        except (ClientGone, HandlerFailed):
            client.endpoint.close()
        except ClientRefused:
            pass
        except WireError as error:
            self.generation.settings.counters.requests_refused += error.status in (400, 408, 431)
            client.refuse(error.status, str(error))
            # its frames hold the task that failed, which holds it
            detached(error)
        await self._leave()

    async def report_end(self) -> None:
        """Tell the handler, and event sinks, that the connection is over."""
        try:
            await self._tell_end()
        finally:
            recording, self._client.recording = self._client.recording, None
            if recording is not None:
                recording.closed()

    async def _tell_end(self) -> None:
        if not self.generation.calls.hears_of_ends:
            return
        try:
            await self._client.reader.in_task(self.generation.calls.closed(self._client.meta.connection_id))
        except HandlerFailed:
            log.debug("on_connection_close failed; the connection is closed already")

    def drain(self) -> None:
        """Let what is under way finish, and close."""
        self._client.reader.draining = True
        if not self._session.drain() and self._client.reader.is_idle:
            self._client.endpoint.close()

    def has_flow(self, flow_id: int) -> bool:
        """Tell whether that flow is under way on this connection."""
        return self._session.has_flow(flow_id)

    def cut_flow(self, flow_id: int) -> None:
        """Cut that flow, if it is under way."""
        self._session.cut_flow(flow_id)

    def abort(self) -> None:
        """Abort the connection now."""
        self._session.abort()
        # a response that was cut must not look complete. Without TLS only a reset says so, and a cut may still wait for its last bytes
        self._client.endpoint.abort(self._client.endpoint.close_error)

    def end(self) -> None:
        """Cancel what hangs although the connection was aborted: user code, or a dial."""
        self._client.reader.end()

    async def _leave(self) -> None:
        """Wait until the connection is gone, for a bounded time."""
        endpoint, reader = self._client.endpoint, self._client.reader
        if endpoint.gone:
            return
        try:
            with reader.within(self.generation.client_end):
                while not endpoint.gone:
                    await reader.changed()
        except TimeoutError:
            endpoint.abort()

    # --- the client

    async def _identify(self) -> None:
        """Find the client's process, tell the handler of the connection, and wait for the first byte."""
        client, calls = self._client, self.generation.calls
        if calls.hears_of_connections:
            await self._find_process()
            await client.reader.in_task(calls.opened(client.meta))
            await self._first_byte()
        else:
            # later is cheaper: by now it is known which of its program's connections this one replaces
            await self._first_byte()
            await self._find_process()
            # unless what came is gone, and the client with it
            await client.reader.read_more(0)

    async def _find_process(self) -> None:
        client, lookup = self._client, self.generation.attribution
        if lookup is not None:
            family = client.meta.socket_family
            process = lookup.recall(family) or await client.reader.in_task(lookup.find(client.endpoint, family))
            client.learn(process_info=process)

    async def _first_byte(self) -> None:
        try:
            with self._client.reader.within(self.generation.client_idle):
                await self._client.reader.read_more(0)
        except TimeoutError:
            raise ClientGone from None

    # --- a target

    async def _connect(self, target: Target) -> None:
        """Do with a target what is decided about it."""
        recording = self._client.recording
        self._client.learn(target=(target.host, target.port))
        if recording is not None:
            recording.named(target.host, target.port, "connect")
        verdict = await self._decisions.of_target(target.host, target.port)
        if recording is not None:
            reason = verdict.why if verdict.block is None else verdict.block.reason
            recording.decided(verdict.action.value, reason, self.generation.policy.pattern(target.host, target.port), verdict.by)
        if verdict.block is not None:
            await self._refuse_target(target, verdict.block)
        elif verdict.action is Action.TUNNEL:
            await self._tunnel(target, verdict.why)
        else:
            await self._intercept(target)

    async def _refuse_target(self, target: Target, block: ConnectDecision) -> None:
        """Refuse the target, or, by `interception.explain_blocks`, each request to it. Nothing is resolved or dialled."""
        if not self.generation.config.interception.explain_blocks:
            raise WireError(block.reason, side="client", status=block.status)
        client = self._client
        client.observe_refusal(block.status, block.reason, is_explained=True)
        client.accept(target.reply)
        tls = self._tls = ClientTls(client, target.host)
        beginning = await self._first_bytes(tls, None)
        hello = beginning.hello
        is_http2 = beginning.kind == "http2"
        if hello is not None:
            name = await tls.asked_name(hello)
            protocol = preferred(self.generation.offer(hello.alpn))
            info = await tls.secure(leaf_name(name, hello.sni or target.spelling), hello, protocol)
            client.learn(tls_info=info)
            is_http2 = info.negotiated_proto == HTTP2
        elif beginning.kind not in ("http", "http2"):
            raise ClientGone
        scheme = "http" if hello is None else "https"
        authority = format_authority(target.host, target.port, scheme)
        counts = self.generation.flow_counts(target.host, target.port)
        route = refusal(client.meta, scheme, authority, block.status, block.reason, counts)
        self._session.exchange(lambda *_: route, is_http2)

    async def _first_bytes(self, tls: ClientTls, tunnel: Tunnel | None) -> Beginning:
        """Return what the client begins with, while `tunnel` listens if there is one; refuse what becomes nothing."""
        try:
            beginning = await first_bytes(self._client)
            if beginning.kind == "end" and tunnel is None:
                raise ClientGone
        except ClientGone:
            self._dismiss(tunnel)
            raise
        if beginning.error is not None:
            self._dismiss(tunnel)
            await refuse_beginning(tls, beginning.kind, beginning.error)
        return beginning

    def _dismiss(self, tunnel: Tunnel | None) -> None:
        if tunnel is not None:
            self._session.dismiss(tunnel)

    # --- tunnelled

    async def _tunnel(self, target: Target, why: str, *, is_examined: bool = False) -> None:
        """Tunnel to the target; unless they are examined already, the client's first bytes are when they come."""
        tunnel = await self._session.dial_tunnel(target)
        self._session.show_tunnel(why)
        if not is_examined and self.generation.policy.looks_into_tunnels:
            tunnel.listen()
            await self._check_name(tunnel, target)
        tunnel.start()

    async def _check_name(self, tunnel: Tunnel, target: Target) -> None:
        """Wait for the client's first bytes in a tunnel; refuse TLS that asks for a name which would not be tunnelled to.

        Returns when the tunnel may start, or has ended.
        """
        tls = ClientTls(self._client, target.host)
        try:
            hello = await hello_in_tunnel(self._client, self._session, tunnel)
            # the handler has a deadline of its own
            name = None if hello is None else hello.sni
            objection = None if name is None else await self._decisions.of_name_in_tunnel(name, target.host, target.port)
            if objection is not None and self._session.holder is tunnel:
                self.generation.settings.counters.names_refused += 1
                raise MalformedHello(objection, ALERT_UNRECOGNIZED_NAME)
        except MalformedHello as error:
            self._dismiss(tunnel)
            await tls.refuse_hello(error, error.alert)
        except TimeoutError as error:
            self._dismiss(tunnel)
            await tls.failed(error, shown=False)
            raise ClientGone from None
        except (ClientGone, HandlerFailed):
            self._dismiss(tunnel)
            raise

    # --- intercepted

    async def _intercept(self, target: Target) -> None:
        client, session = self._client, self._session
        client.accept(target.reply)
        tls = self._tls = ClientTls(client, target.host)
        beginning = await self._first_bytes(tls, None)
        tunnel: Tunnel | None = None
        if beginning.kind == "silence" and self._decisions.lets_unknown_pass(target.host, target.port):
            # perhaps it waits for the server, which alone may speak until it is known what the client does
            tunnel = await session.dial_tunnel(target)
            tunnel.listen()
            beginning = await self._first_bytes(tls, tunnel)
        if beginning.kind == "end":
            # what the upstream said last may be on its way
            assert tunnel is not None
            session.show_tunnel("unknown_protocol")
            tunnel.start()
            return
        if beginning.kind == "other":
            await self._relay_unknown(target, tunnel)
            return
        if tunnel is not None:
            self._dismiss(tunnel)
            if tunnel.upstream_spoke:
                await self._refuse_to_answer_for(tls, beginning)
        if beginning.kind == "silence":
            client.observe_refusal(0, "the client said nothing inside its CONNECT (timeouts.client_first_bytes_ms)")
            raise ClientGone
        if beginning.hello is not None:
            await self._intercept_tls(target, tls, beginning.hello)
            return
        is_http2 = beginning.kind == "http2"
        origin = self.generation.origin(target.host, target.port, None, (HTTP2,) if is_http2 else (HTTP1,))
        authority = format_authority(target.host, target.port, "http")
        counts = self.generation.flow_counts(target.host, target.port)
        route = Route(self.generation.pools.pool(origin), client.meta, "http", authority, counts=counts)
        session.exchange(InsideRouter(client, route, target.host, target.port, target.host, is_http2), is_http2)

    async def _refuse_to_answer_for(self, tls: ClientTls, beginning: Beginning) -> None:
        """Refuse TLS and HTTP where the upstream has spoken first, and so speaks something else."""
        if beginning.hello is not None:
            error = MalformedHello("TLS where the upstream had spoken first", ALERT_UNEXPECTED_MESSAGE)
            await tls.refuse_hello(error, error.alert)
        if beginning.kind in ("http", "http2"):
            raise WireError("the upstream had spoken before this request, so it does not speak HTTP", side="client", status=400)

    async def _relay_unknown(self, target: Target, tunnel: Tunnel | None) -> None:
        """The client has begun with what can be neither TLS nor HTTP."""
        self.generation.resources.connection_counters.unknown_protocols += 1
        if tunnel is not None:
            self._session.show_tunnel("unknown_protocol")
            tunnel.start()
        elif self._decisions.lets_unknown_pass(target.host, target.port):
            await self._tunnel(target, "unknown_protocol", is_examined=True)
        else:
            key = self.generation.policy.tunnel_forbidden_by(target.host, target.port) or "interception.unknown_protocol is block"
            raise WireError(
                f"this CONNECT to {format_host_port(target.host, target.port)} carries neither TLS nor HTTP, and is not tunnelled ({key})",
                side="client",
                status=400,
            )

    async def _intercept_tls(self, target: Target, tls: ClientTls, hello: ClientHello) -> None:
        client, generation, decisions = self._client, self.generation, self._decisions
        name = await tls.asked_name(hello)
        authority = format_authority(target.host, target.port, "https")
        offer = generation.offer(hello.alpn)
        origin = generation.origin(target.host, target.port, name, offer)
        # unless it is known what its upstream speaks
        protocol = preferred(offer)
        info: UpstreamTlsInfo | None = None
        failure: WireError | None = None
        trial = None
        # the target was judged: no client gets past the policy by connecting to one name and asking for another
        refused = await decisions.of_name_inside(name, target.port) if hello.sni and name != target.host else None
        if refused is None:
            if not decisions.is_told_to_intercept:
                trial = decisions.begin_trial(name)
                if trial is None:
                    await self._tunnel(target, "bypass", is_examined=True)
                    return
            if generation.pools.is_known(origin):
                info = generation.pools.known_info(origin)
                protocol = client_protocol(offer, origin, info)
            elif decisions.may_dial_ahead():
                try:
                    info = await self._reach(origin)
                    protocol = client_protocol(offer, origin, info)
                except WireError as error:
                    # answered inside the client's TLS, where it can be read
                    failure = detached(error)
        tls_info = await tls.secure(leaf_name(name, hello.sni or target.spelling), hello, protocol, info, trial)
        client.learn(tls_info=tls_info)
        counts = generation.flow_counts(target.host, target.port)
        if refused is not None:
            generation.settings.counters.names_refused += 1
            route = refusal(client.meta, "https", authority, refused.status, refused.reason, counts)
        elif failure is not None:
            # the handler hears of the request all the same
            route = Route(None, client.meta, "https", authority, status=failure.status, reason=str(failure).encode(), counts=counts)
        else:
            # what is remembered of the origin holds until a request has a connection
            pool = generation.pools.pool(origin)
            route = Route(pool, client.meta, "https", authority, facts=info, on_facts=with_upstream_info, counts=counts)
        is_http2 = tls_info.negotiated_proto == HTTP2
        self._session.exchange(InsideRouter(client, route, target.host, target.port, name, is_http2), is_http2)

    async def _reach(self, origin: Origin) -> UpstreamTlsInfo | None:
        """Reach `origin` for as long as the client is there to wait; the dial itself goes on, for the pool."""
        reader = self._client.reader
        reaching = self.generation.resources.loop.create_task(self.generation.pools.reach(origin))
        try:
            return await reader.wait_for(reaching, lambda: reader.over)
        finally:
            reaching.cancel()
