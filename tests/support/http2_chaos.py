"""An origin and clients of HTTP/2 that do to each other whatever happens in the field, each as a plan says, on asyncio.

The path of a request is its plan: `/ID/SIZE/MISHAP/AT`, SIZE being the octets of the response and AT how many of them come before the
mishap. The `h2` library holds the proxy to the rules of RFC 9113 on both sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from support.origin_answers import pattern

PIECE = 5000
MOST_STREAMS = 100
PATIENCE = 60.0
GOAWAY = 7


class Peer:
    """What both sides share: a connection, and content that waits for windows."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client_side: bool) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=client_side, header_encoding="latin-1"))
        self.received = self.sent = 0
        # content by stream, and whether the message ends with it
        self.waiting: dict[int, tuple[bytes, bool]] = {}

    def flush(self) -> None:
        """Write what the library has made."""
        data = self.h2.data_to_send()
        if data and not self.writer.is_closing():
            self.sent += len(data)
            self.writer.write(data)

    def send(self, number: int, data: bytes, *, end: bool) -> None:
        """Send content as the other side takes it."""
        self.waiting[number] = data, end
        self.pump()

    def pump(self) -> None:
        """Send what there is room for, in turn."""
        for number in list(self.waiting):
            if number not in self.waiting:
                # on_sent() of another one ended it
                continue
            data, end = self.waiting[number]
            try:
                room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size, PIECE)
                if data and room <= 0:
                    continue
                self.h2.send_data(number, data[:room], end_stream=end and len(data) <= room)
            except h2.exceptions.ProtocolError:
                # the stream is over
                del self.waiting[number]
                continue
            if len(data) <= room:
                del self.waiting[number]
                self.on_sent(number)
            else:
                self.waiting[number] = data[room:], end
        self.flush()

    def on_sent(self, number: int) -> None:
        """All that waited of a stream was sent."""

    def reset(self, number: int, code: h2.errors.ErrorCodes) -> None:
        """End a stream, unless it is over."""
        self.waiting.pop(number, None)
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self.h2.reset_stream(number, code)
        self.flush()

    def on_event(self, event: Any) -> None:
        """Something came."""

    async def read(self) -> bool:
        """Read once; False at the end."""
        try:
            data = await self.reader.read(1 << 16)
        except (ConnectionError, ssl.SSLError):
            data = b""
        self.received += len(data)
        if not data:
            return False
        for event in self.h2.receive_data(data):
            self.on_event(event)
        self.flush()
        while any(self.waiting) and self.has_room():
            self.pump()
        return True

    def has_room(self) -> bool:
        """Tell whether something that waits can be sent."""
        for number, (data, _) in self.waiting.items():
            try:
                if not data or self.h2.local_flow_control_window(number) > 0:
                    return True
            except h2.exceptions.ProtocolError:
                return True
        return False

    async def close(self) -> None:
        """Close, whatever the other side does."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class Origin(Peer):
    """One connection of the origin."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, uploads: dict[str, int]) -> None:
        super().__init__(reader, writer, client_side=False)
        self.h2.local_settings = h2.settings.Settings(
            client=False, initial_values={h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: MOST_STREAMS}
        )
        self.h2.initiate_connection()
        self.flush()
        self.uploads = uploads
        # stream: identity, size, mishap, at
        self.plans: dict[int, tuple[str, int, str, int]] = {}
        self.highest = 0
        self.has_left = False

    async def serve(self) -> None:
        """Answer until the proxy or a GOAWAY of ours ends the connection."""
        try:
            while not (self.has_left and not self.h2.open_inbound_streams) and await self.read():
                pass
        finally:
            await self.close()

    def on_event(self, event: Any) -> None:
        number = getattr(event, "stream_id", 0) or 0
        match event:
            case h2.events.RequestReceived():
                if self.has_left:
                    # above the last of the GOAWAY: it was told that these are not processed
                    return
                self.highest = number
                head = dict(event.headers)
                identity, size, mishap, at = head[":path"].strip("/").split("/")
                self.plans[number] = identity, int(size), mishap, int(at)
                self.uploads.setdefault(identity, 0)
                self.begin(number, ended=event.stream_ended is not None)
            case h2.events.DataReceived():
                self.h2.acknowledge_received_data(event.flow_controlled_length, number)
                if number in self.plans:
                    self.uploads[self.plans[number][0]] += len(event.data)
            case h2.events.StreamEnded():
                if number in self.plans and self.plans[number][2] != "early":
                    self.answer(number)

    def begin(self, number: int, *, ended: bool) -> None:
        """The head of a request came."""
        mishap = self.plans[number][2]
        if mishap == "refuse":
            self.reset(number, h2.errors.ErrorCodes.REFUSED_STREAM)
        elif mishap == "early":
            self.answer(number)
            if not ended:
                self.reset(number, h2.errors.ErrorCodes.NO_ERROR)

    def answer(self, number: int) -> None:
        """Send the response of the plan, as far as it goes."""
        identity, size, mishap, at = self.plans[number]
        kind = "text/event-stream" if mishap == "events" else "application/octet-stream"
        fields = [(":status", "200"), ("content-type", kind), ("x-received", str(self.uploads[identity]))]
        goes_on = mishap in ("reset", "goaway") and at < size
        try:
            self.h2.send_headers(number, fields, end_stream=not size and not goes_on)
        except h2.exceptions.ProtocolError:
            return
        content = events(size) if mishap == "events" else pattern(size)
        self.send(number, content[:at] if goes_on else content, end=not goes_on) if size or goes_on else self.flush()

    def on_sent(self, number: int) -> None:
        plan = self.plans.get(number)
        if plan is None:
            return
        identity, size, mishap, at = plan
        if mishap == "reset" and at < size:
            self.reset(number, h2.errors.ErrorCodes.INTERNAL_ERROR)
        elif mishap == "goaway" and at < size:
            self.leave()
            # goes on, since it is not above the last
            self.plans[number] = identity, size, "", 0
            self.waiting[number] = pattern(size)[at:], True

    def leave(self) -> None:
        """Send GOAWAY; not by the library, which would not go on with the streams that are left."""
        if not self.has_left and not self.writer.is_closing():
            self.has_left = True
            self.flush()
            frame = struct.pack(">IBBI", 8, GOAWAY, 0, 0)[1:] + struct.pack(">II", self.highest, 0)
            self.sent += len(frame)
            self.writer.write(frame)


def events(size: int) -> bytes:
    """Return a stream of events of this size."""
    line = b"data: " + b"x" * 90 + b"\n\n"
    return (line * (size // len(line) + 1))[: size - size % len(line)]


@dataclass
class Stream:
    """One request of a client and what came of it. `outcome` is empty until it is over."""

    plan: Plan
    status: int = 0
    content: bytearray = field(default_factory=bytearray)
    received: int = -1
    outcome: str = ""
    held: int = 0


@dataclass
class Plan:
    """What one request is to be. `cancels` at so many octets of the response, -1: never, -2: before the response."""

    identity: str
    size: int
    upload: int
    mishap: str
    at: int
    cancels: int
    is_slow: bool

    @property
    def path(self) -> str:
        return f"/{self.identity}/{self.size}/{self.mishap}/{self.at}"


class Client(Peer):
    """One connection of a client through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str) -> None:
        super().__init__(reader, writer, client_side=True)
        self.authority = authority
        self.streams: dict[int, Stream] = {}
        self.goaways = 0
        self.h2.initiate_connection()
        self.flush()

    def ask(self, plan: Plan) -> None:
        """Send the request of a plan."""
        number = self.h2.get_next_available_stream_id()
        self.streams[number] = stream = Stream(plan)
        pseudo = [(":method", "POST" if plan.upload else "GET"), (":scheme", "https"), (":authority", self.authority), (":path", plan.path)]
        self.h2.send_headers(number, pseudo, end_stream=not plan.upload)
        self.flush()
        if plan.cancels == -2:
            stream.outcome = "cancelled"
            self.reset(number, h2.errors.ErrorCodes.CANCEL)
        elif plan.upload:
            self.send(number, pattern(plan.upload), end=True)

    def on_event(self, event: Any) -> None:
        number = getattr(event, "stream_id", 0) or 0
        stream = self.streams.get(number)
        if stream is None:
            self.goaways += isinstance(event, h2.events.ConnectionTerminated)
            return
        match event:
            case h2.events.ResponseReceived():
                assert not stream.status, "two responses"
                head = dict(event.headers)
                stream.status, stream.received = int(head[":status"]), int(head.get("x-received", -1))
            case h2.events.DataReceived():
                stream.content += event.data
                if stream.plan.is_slow:
                    stream.held += event.flow_controlled_length
                else:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, number)
                if 0 <= stream.plan.cancels <= len(stream.content) and not stream.outcome:
                    stream.outcome = "cancelled"
                    self.reset(number, h2.errors.ErrorCodes.CANCEL)
            case h2.events.StreamEnded():
                assert stream.outcome in ("", "cancelled"), f"ended behind {stream.outcome}"
                stream.outcome = stream.outcome or "complete"
            case h2.events.StreamReset():
                if event.remote_reset:
                    assert stream.outcome in ("", "cancelled", "complete"), f"reset behind {stream.outcome}"
                    stream.outcome = stream.outcome or f"reset {event.error_code!r}"

    def take(self) -> bool:
        """A slow reader takes what lies there; tell whether there was something."""
        found = False
        for number, stream in self.streams.items():
            if stream.held:
                found = True
                held, stream.held = stream.held, 0
                with contextlib.suppress(h2.exceptions.ProtocolError):
                    self.h2.acknowledge_received_data(held, number)
        self.flush()
        return found

    @property
    def is_over(self) -> bool:
        return all(stream.outcome for stream in self.streams.values())

    async def run(self, plans: Sequence[Plan]) -> None:
        """Ask everything at once and wait until all of it is over."""
        for plan in plans:
            self.ask(plan)
        while not self.is_over:
            # what is slow reads when nothing else comes
            reading = asyncio.ensure_future(self.read())
            while not reading.done():
                done, _ = await asyncio.wait((reading,), timeout=0.02)
                if not done:
                    self.take()
            if not reading.result():
                raise AssertionError(f"the proxy closed the connection with {self.left()} open")

    def left(self) -> list[Plan]:
        """Return the plans that are not over."""
        return [stream.plan for stream in self.streams.values() if not stream.outcome]


async def connect(port: int, authority: str, context: ssl.SSLContext) -> Client:
    """Return a client behind the proxy's CONNECT and TLS."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in head, head
    await writer.start_tls(context, server_hostname=authority.partition(":")[0])
    tls = writer.get_extra_info("ssl_object")
    assert tls.selected_alpn_protocol() == "h2"
    return Client(reader, writer, authority)


def make_plans(chance: random.Random, name: str, count: int) -> list[Plan]:
    """Make plans; about half of them go well."""
    plans = []
    for number in range(count):
        size = chance.choice((0, 1, 500, 20_000, 70_000, 200_000))
        upload = chance.choice((0, 0, 1, 3000, 80_000))
        mishap = chance.choices(("-", "reset", "goaway", "early", "refuse", "events"), (60, 8, 0.5, 6, 4, 21.5))[0]
        cancels = chance.choices((-1, -2, 0, size // 2), (80, 5, 5, 10))[0]
        plans.append(Plan(f"{name}-{number}", size, upload, mishap, chance.randint(0, size), cancels, chance.random() < 0.2))
    return plans


def outcomes(clients: Sequence[Client]) -> Counter[str]:
    """Count what came of all streams."""
    return Counter(
        f"{stream.outcome} {stream.status}" if stream.outcome == "complete" else stream.outcome.partition(" ")[0]
        for client in clients
        for stream in client.streams.values()
    )
