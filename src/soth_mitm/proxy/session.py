"""Handing a client connection to the data plane, and having it back."""

import asyncio
from collections.abc import Callable

from soth_mitm._dataplane.exchange.relay import Tunnel
from soth_mitm._dataplane.exchange.route import Route
from soth_mitm._dataplane.http1.server import Http1ServerConnection
from soth_mitm._dataplane.http2.server import Http2ServerConnection
from soth_mitm.errors import WireError
from soth_mitm.escaping import get_logger
from soth_mitm.observe.observation import EventKind
from soth_mitm.proxy.client import Client
from soth_mitm.proxy.client_reader import ClientGone
from soth_mitm.proxy.detached import detached
from soth_mitm.proxy.inbound.target import Target
from soth_mitm.proxy.outbound.origin import Origin, abandon
from soth_mitm.proxy.protocols import UpstreamEndpoint

log = get_logger("soth_mitm.proxy")

ServerConnection = Http1ServerConnection | Http2ServerConnection


class Session:
    """What holds a client's endpoint: a connection of HTTP/1 or HTTP/2, a `Tunnel`, or, with `holder` None, the set-up."""

    __slots__ = ("_client", "_is_shown", "_upstream", "_was_held", "holder")

    def __init__(self, client: Client) -> None:
        self._client = client
        self.holder: ServerConnection | Tunnel | None = None
        self._was_held = False
        # the observer was told of a tunnel
        self._is_shown = False
        # of the tunnel
        self._upstream: UpstreamEndpoint | None = None

    # --- requests

    def exchange(self, router: Callable[[str | None, bytes], Route], is_http2: bool = False) -> None:
        """Serve requests, which go where `router` says."""
        client = self._client
        speaking = Http2ServerConnection if is_http2 else Http1ServerConnection
        connection: ServerConnection = speaking(client.generation.settings, client.endpoint, self._ended, router=router)
        if client.recording is not None and isinstance(connection, Http1ServerConnection):
            connection.on_refused = client.recording.refused
        self._hold(connection)
        connection.start()
        if client.reader.draining:
            connection.drain()

    def _hold(self, holder: ServerConnection | Tunnel) -> None:
        self.holder, self._was_held = holder, True

    def _ended(self) -> None:
        # it names us: together the two would wait for the garbage collector, and the connection's buffers with them
        self.holder = self._upstream = None
        self._client.reader.wake()

    # --- tunnels

    async def dial_tunnel(self, target: Target) -> Tunnel:
        """Return a tunnel to `target`, which holds the client now and has to be started; the client is told that it may begin."""
        client = self._client
        generation, reader = client.generation, client.reader
        dial = generation.resources.loop.create_task(generation.dialler.dial(Origin(target.host, target.port)))
        try:
            # a client that has sent something and then ended its direction may be waiting for the answer
            upstream = await reader.wait_for(dial, lambda: reader.over and not reader.peek())
        except (ClientGone, asyncio.CancelledError):
            abandon(dial)
            raise
        except WireError as error:
            if not client.is_accepted:
                raise
            # the client was told that it may begin, and has begun to speak something else than HTTP
            log.info("%s", error)
            client.observe_refusal(0, str(error))
            raise ClientGone from detached(error)
        if not client.is_accepted:
            client.accept(target.reply)
        tunnel = Tunnel(generation.settings, client.endpoint, upstream, self._tunnel_ended)
        self._upstream = upstream
        self._hold(tunnel)
        return tunnel

    def _tunnel_ended(self) -> None:
        self._show_tunnel_end()
        self._client.reader.attach(self._client.endpoint)
        self._ended()

    def show_tunnel(self, why: str) -> None:
        """Tell whoever wants to know of the tunnel."""
        self._is_shown = True
        self._client.observe(EventKind.TUNNEL, cause=why)
        if self._client.recording is not None and isinstance(self.holder, Tunnel):
            self.holder.record(self._client.recording.tunnel(why, self._upstream))

    def _show_tunnel_end(self) -> None:
        if self._is_shown:
            self._is_shown = False
            self._client.observe(EventKind.TUNNEL_END)
            if self._client.recording is not None:
                self._client.recording.tunnel_ended()

    def dismiss(self, tunnel: Tunnel) -> None:
        """Have the client back from a tunnel that has not started."""
        tunnel.dismiss()
        self._show_tunnel_end()
        if self.holder is tunnel:
            self.holder, self._upstream, self._was_held = None, None, False

    # --- the end

    async def ended(self) -> bool:
        """Wait until the data plane has returned the client and its connection is over. False, at once, if it never had the client."""
        # the last bytes of a tunnel have their own bound
        while self._was_held and (self.holder is not None or not self._client.endpoint.gone):
            await self._client.reader.changed()
        return self._was_held

    def drain(self) -> bool:
        """Let what is under way finish; False if nothing holds the client."""
        if self.holder is None:
            return False
        self.holder.drain()
        return True

    def has_flow(self, flow_id: int) -> bool:
        """Tell whether that flow is under way."""
        return isinstance(self.holder, ServerConnection) and self.holder.has_flow(flow_id)

    def cut_flow(self, flow_id: int) -> None:
        """Cut that flow, if it is under way."""
        if isinstance(self.holder, ServerConnection):
            self.holder.cut_flow(flow_id)

    def abort(self) -> None:
        """End what is under way now."""
        if self.holder is not None:
            self.holder.abort()
