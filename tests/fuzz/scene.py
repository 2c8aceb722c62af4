"""Clients, upstreams, a handler and a loop, none of which is real: whatever happens between them is an `Operation` of the input.

What stands between clients and upstreams is the proxy's own; `exchanges` and `proxies` say how much of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fuzz.conversations import LIMIT, SWITCHED, finals, request_stream, response_stream
from fuzz.fake_loop import FakeLoop
from fuzz.fake_transport import FakeTransport
from fuzz.http2_wire import Http2Talk
from fuzz.operations import MANY, MOST_MESSAGES, Operation
from fuzz.scripted_handler import DECIDING, HOOKS, ScriptedHandler
from soth_mitm import MitmConfig
from soth_mitm.config.schema import Kind, specs
from soth_mitm.config.sections import MAX_COUNT

MOST_CLIENTS = 3
MOST_OPERATIONS = 200
MOST_TIMERS = 400
# Milliseconds. It is over when the next line runs, and more than nought, which means other things here and there
NO_TIME = 1e-6

BODY_LIMITS = (1 << 16, 8, 100, 4096)
HEAD_LIMITS = (65536, 256)


class Peer:
    """One client or upstream connection: its transport and what was said on it. `http2` is there when it speaks HTTP/2.

    `host` is that of an upstream, where it makes a difference.
    """

    http2: Http2Talk | None = None
    host = ""

    def __init__(self, loop: FakeLoop, endpoint: Any) -> None:
        self.endpoint = endpoint
        self.requests = request_stream()
        self.responses = response_stream(self.requests)
        self.transport = FakeTransport(loop, endpoint, self.hear, self.say)

    def hear(self, data: bytes) -> None:
        """The proxy writes."""

    def say(self, data: bytes) -> None:
        """The proxy reads."""

    @property
    def is_cut(self) -> bool:
        """Whether the connection was cut, by whomever, so that the peer knows it."""
        return self.transport.reset or (self.transport.aborted and self.transport.socket.resets)

    @property
    def has_ended(self) -> bool:
        """Whether the proxy was told that the peer has said all."""
        return self.transport.ended


class Upstream(Peer):
    """An upstream that is sent requests and nothing else."""

    def __init__(self, loop: FakeLoop, endpoint: Any) -> None:
        super().__init__(loop, endpoint)
        self.requests = request_stream(LIMIT, self._check_turn)
        self.responses = response_stream(self.requests)

    def hear(self, data: bytes) -> None:
        if self.responses.fault != SWITCHED:
            self.requests.feed(data)
            assert not self.requests.fault, f"the upstream is sent what cannot be parsed: {self.requests.fault}"

    def say(self, data: bytes) -> None:
        self.responses.feed(data)

    def _check_turn(self) -> None:
        """A request goes out when the exchange before is over: else what the upstream said too early would be taken for the answer."""
        said = len(finals(self.responses))
        assert self.responses.at_boundary and said == len(self.requests.messages), "a request behind an exchange that is not over"
        assert not self.requests.messages or not self.transport.has_unread, "a request to who has spoken unasked, or is gone"


class Client(Peer):
    """A client. `ends` counts how often its end was told, `closed_in` is the verb of the operation that its connection was closed in, and
    `ended_in` of the one that the proxy said its last in.
    `asked` requests had come whole when the proxy had said its last."""

    ends = 0
    closed_in = ""
    ended_in = ""
    asked = -1

    def note_closing(self, verb: str) -> None:
        """See, after an operation, whether the connection is being closed."""
        if self.asked < 0 and (self.transport.closing or self.transport.eof_written):
            self.asked = sum(message.complete for message in self.requests.messages)
            self.ended_in = verb
        if self.transport.closing and not self.closed_in:
            self.closed_in = verb

    def drain(self) -> None:
        """Let what is under way finish."""
        raise NotImplementedError

    def abort(self) -> None:
        """Cut it."""
        raise NotImplementedError


class Dial:
    """A connection that an upstream was asked for; `future` ends in it. `connect` makes it."""

    def __init__(self, loop: FakeLoop, connect: Callable[[], Peer]) -> None:
        self.future: asyncio.Future[Peer] = loop.create_future()
        self.connect = connect


class Scene:
    """All of it, for one input."""

    def __init__(self, handler: ScriptedHandler, loop: FakeLoop, *, dials_at_once: bool) -> None:
        self.loop = loop
        self.handler = handler
        self.clients: list[Client] = []
        self.upstreams: list[Peer] = []
        self._dials: list[Dial] = []
        self._dials_at_once = dials_at_once

    # --- what stands between

    def new_client(self) -> Client:
        """Let a client connect."""
        raise NotImplementedError

    def drain(self) -> None:
        """The proxy is to end."""
        raise NotImplementedError

    def retire(self) -> None:
        """The configuration is replaced."""
        raise NotImplementedError

    def close(self) -> None:
        """End what a proxy ends when it stops."""
        raise NotImplementedError

    async def dial(self, connect: Callable[[], Peer]) -> Peer:
        """Wait until the input lets a connection be made, or refuses it."""
        dial = Dial(self.loop, connect)
        self._dials.append(dial)
        if self._dials_at_once:
            self._answer_dial(dial, True, 0)
        return await dial.future

    def refusal(self, number: int) -> Exception:
        """Return what a dial fails with."""
        return ConnectionRefusedError(111, "refused")

    def _answer_dial(self, dial: Dial, accepted: bool, number: int) -> None:
        self._dials.remove(dial)
        if dial.future.done():
            return
        if accepted:
            peer = dial.connect()
            self.upstreams.append(peer)
            dial.future.set_result(peer)
        else:
            dial.future.set_exception(self.refusal(number))

    # --- what happens

    def client(self, number: int) -> Client:
        """Return a client; one that was not there connects now."""
        number %= MOST_CLIENTS
        while len(self.clients) <= number:
            self.clients.append(self.new_client())
        return self.clients[number]

    def act(self, operation: Operation) -> None:
        """Let one thing happen, and what comes of it unless that waits for the next one."""
        verb, number, data, same_turn = operation
        side, _, action = verb.partition("_")
        if side == "client" or (side == "upstream" and self.upstreams):
            peer: Peer = self.client(number) if side == "client" else self.upstreams[number % len(self.upstreams)]
            self._act_as(peer, action, data)
            # what an upstream does in the same turn is not seen by the loop until the turn is over
            if side == "client" or not same_turn:
                peer.transport.pump()
        elif verb in ("connect", "refuse") and self._dials:
            self._answer_dial(self._dials[number % len(self._dials)], verb == "connect", number)
        elif verb == "answer":
            self.handler.answer(number, data)
        elif verb == "hook":
            self.handler.behave(number, data)
        elif verb == "late":
            self.loop.fire(number)
        elif verb == "drain":
            self.drain()
        elif verb == "abort" and self.clients:
            self.clients[number % len(self.clients)].abort()
        elif verb == "retire":
            self.retire()
        if not same_turn:
            self.settle()

    def _act_as(self, peer: Peer, action: str, data: bytes) -> None:
        transport = peer.transport
        match action:
            case "" | "many":
                transport.peer_sends(repeated(data) if action and data else data)
            case "ends":
                transport.peer_ends()
            case "resets":
                transport.peer_resets()
            case "stops_reading":
                transport.peer_stops_reading()
            case "reads":
                transport.peer_reads()

    @property
    def peers(self) -> list[Peer]:
        return [*self.clients, *self.upstreams]

    def settle(self) -> None:
        """Run until nothing more happens by itself."""
        while self.loop.run_ready() or any([peer.transport.pump() for peer in self.peers]):
            pass
        assert not self.loop.faults, self.loop.faults

    def wind_down(self) -> None:
        """Peers read, hooks return, dials succeed, and every time that can pass passes: then everything must have ended by itself."""
        self.settle()
        self.handler.behave_well()
        self._dials_at_once = True
        for peer in self.peers:
            peer.transport.peer_reads()
        for dial in list(self._dials):
            self._answer_dial(dial, True, 0)
        self.settle()
        fired = 0
        while self.loop.fire(0):
            fired += 1
            self.settle()
            # each request in a pipeline has deadlines of its own
            asked = sum(len(client.requests.messages) for client in self.clients)
            assert fired <= MOST_TIMERS + 4 * asked, "deadlines without end"
        for client in self.clients:
            assert client.transport.lost, "a client waits for something that has no deadline"
        self.close()
        for peer in self.peers:
            assert peer.transport.lost, "a connection was left open"


def repeated(data: bytes) -> bytes:
    """Return much of the same; of messages only a few, since each takes its time."""
    return data * (MOST_MESSAGES if b"HTTP/1" in data else 1 + MANY // len(data))


def settings_of(data: bytes) -> tuple[dict[str, object], tuple[str, ...], int, int]:
    """Read the first four settings: configuration, the hooks that the handler has, and two bytes of flags for the scene.

    The eighth says which hooks decide about responses. What is missing is nought, which is the default.
    """
    flags, limits, pool, hooks = (*data[:4], 0, 0, 0, 0)[:4]
    keys: dict[str, object] = {
        "intercept_mode": "monitor" if flags & 1 else "enforce",
        "body.buffer_request_bodies": not flags & 2,
        "body.overflow": "reject" if flags & 4 else "stream",
        "upstream.retry_on_failure": not flags & 8,
        "handler.failure_policy": "block" if flags & 16 else "allow",
        "handler.recover_from_panics": not flags & 32,
        "interception.strip_alt_svc": bool(flags & 64),
        "body.incomplete": "refuse" if flags & 128 else "show",
        "body.max_size_bytes": BODY_LIMITS[limits & 3],
        "connection_pool.unsafe_reuse_idle_ms": 0 if limits & 32 else MAX_COUNT,
        "max_http_head_bytes": HEAD_LIMITS[limits >> 2 & 1],
        "flow_runtime.dispatch_queue_capacity": (128, 1, 2, 3)[limits >> 3 & 3],
        "connection_pool.max_connections_per_host": (32, 1, 2, 3)[pool & 3],
        "connection_pool.max_idle_per_host": (8, 0, 1, 2)[pool >> 2 & 3],
    }
    names = tuple(name for bit, name in enumerate(HOOKS) if not hooks & 1 << bit)
    deciding = data[7] if len(data) > 7 else 0
    if not deciding & 1:
        # it is never asked about a body without being asked about the head
        deciding &= ~2
    return keys, names + tuple(name for bit, name in enumerate(DECIDING) if deciding & 1 << bit), pool, hooks


def make_config(**keys: object) -> MitmConfig:
    """Return a configuration in which every time is over at once: what has a deadline is late as soon as its timer is chosen."""
    config = MitmConfig()
    config.interception.destinations.append("a.example:*")
    for name, spec in specs(MitmConfig).items():
        if name.endswith("_ms") and spec.kind is Kind.NUMBER:
            spec.write(config, NO_TIME)
    for name, value in keys.items():
        specs(MitmConfig)[name].write(config, value)
    return config
