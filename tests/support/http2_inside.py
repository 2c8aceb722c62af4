"""An HTTP/2 client on a blocking socket, by the `h2` library, which holds the proxy to the rules of RFC 9113."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Sequence
from typing import Any

import h2.config
import h2.connection
import h2.events

from support.running import HOST, Running
from support.wire_client import WireClient

Fields = Sequence[tuple[str, str]]


@dataclasses.dataclass
class Http2Answer:
    """What came on one stream so far."""

    headers: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    interim: list[list[tuple[str, str]]] = dataclasses.field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[str, str]] | None = None
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(dict(self.headers)[":status"])

    @property
    def text(self) -> str:
        return self.body.decode()

    def get(self, name: str) -> str | None:
        """Return the values of a field joined by commas, None if it is absent."""
        values = [value for field, value in self.headers if field == name]
        return ", ".join(values) if values else None

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None


class _Connection(h2.connection.H2Connection):
    """Goes on after a GOAWAY: the library takes the connection for closed, and RFC 9113 section 6.8 has streams finish."""

    def _receive_goaway_frame(self, frame: Any) -> tuple[list[Any], list[Any]]:
        event = h2.events.ConnectionTerminated()
        event.error_code, event.last_stream_id = frame.error_code, frame.last_stream_id
        return [], [event]


class Http2Client:
    """HTTP/2 over a socket whose handshake, if any, is over. `gone` says that the proxy has closed it."""

    def __init__(self, connection: socket.socket, authority: str, scheme: str = "https") -> None:
        self.socket = connection
        self.authority = authority
        self.scheme = scheme
        self.streams: dict[int, Http2Answer] = {}
        self.goaways: list[tuple[int, int]] = []
        """The last stream and the code of each GOAWAY."""
        self.gone = False
        self.h2 = _Connection(h2.config.H2Configuration(client_side=True, header_encoding="latin-1"))
        self.h2.initiate_connection()
        self.flush()

    @classmethod
    def inside(cls, client: WireClient, port: int, *, scheme: str = "https") -> Http2Client:
        """Return a client inside the CONNECT of another, which has done its handshake."""
        return cls(client.socket, f"{HOST}:{port}", scheme)

    def flush(self) -> None:
        """Send what the library has made."""
        data = self.h2.data_to_send()
        if data:
            self.socket.sendall(data)

    def open(
        self,
        path: str,
        *,
        method: str = "GET",
        fields: Fields = (),
        body: bytes | None = None,
        authority: str | None = None,
        end: bool = True,
    ) -> int:
        """Send a request, `end` saying whether it ends with that; return its stream."""
        number = self.h2.get_next_available_stream_id()
        pseudo = [(":method", method), (":scheme", self.scheme), (":authority", authority or self.authority), (":path", path)]
        self.streams[number] = Http2Answer()
        self.h2.send_headers(number, [*pseudo, *fields], end_stream=end and body is None)
        self.flush()
        if body is not None:
            self.send(number, body, end=end)
        return number

    def send(self, number: int, data: bytes, *, end: bool = False) -> None:
        """Send content, as far as the proxy takes it."""
        while data:
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            if room <= 0:
                self.read()
                continue
            self.h2.send_data(number, data[:room])
            data = data[room:]
            self.flush()
        if end:
            self.h2.end_stream(number)
            self.flush()

    def request(self, path: str, **how: Any) -> Http2Answer:
        """Send a request and return the whole answer, or the reset that came in its place."""
        return self.answer(self.open(path, **how))

    def answer(self, number: int) -> Http2Answer:
        """Return what came on a stream, when it is over."""
        stream = self.streams[number]
        while not stream.over:
            self.read()
        return stream

    def head(self, number: int) -> Http2Answer:
        """Return what came on a stream, when its head is there."""
        stream = self.streams[number]
        while not stream.headers and not stream.over:
            self.read()
        return stream

    def read(self) -> None:
        """Read what comes next, and answer what has to be; `EOFError` when nothing will."""
        self.hear()
        self.flush()

    def hear(self) -> None:
        """Read what comes next, and answer nothing."""
        data = self.socket.recv(1 << 16)
        if not data:
            self.gone = True
            raise EOFError("the proxy has closed the connection")
        for event in self.h2.receive_data(data):
            self._on_event(event)

    def read_to_end(self, *, answering: bool = True) -> None:
        """Read until the proxy closes."""
        try:
            while True:
                if answering:
                    self.read()
                else:
                    self.hear()
        except (EOFError, OSError):
            self.gone = True

    def _on_event(self, event: Any) -> None:
        stream = self.streams.get(getattr(event, "stream_id", 0) or 0, Http2Answer())
        match event:
            case h2.events.ResponseReceived():
                assert not stream.headers, "two heads"
                stream.headers = [(str(name), str(value)) for name, value in event.headers]
            case h2.events.InformationalResponseReceived():
                stream.interim.append([(str(name), str(value)) for name, value in event.headers])
            case h2.events.DataReceived():
                stream.body += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.TrailersReceived():
                stream.trailers = [(str(name), str(value)) for name, value in event.headers]
            case h2.events.StreamEnded():
                stream.ended = True
            case h2.events.StreamReset():
                stream.reset = int(event.error_code)
            case h2.events.ConnectionTerminated():
                self.goaways.append((event.last_stream_id or 0, int(event.error_code)))


def http2_client(
    running: Running, port: int, *, alpn: Sequence[str] = ("h2", "http/1.1"), host: str = HOST
) -> tuple[WireClient, Http2Client]:
    """Return a connection whose handshake with the proxy chose h2, and HTTP/2 on it."""
    client = running.tunnel(port, host)
    context = running.client_context()
    context.set_alpn_protocols(list(alpn))
    client.start_tls(context, host)
    assert client.tls.selected_alpn_protocol() == "h2"
    return client, Http2Client(client.socket, f"{host}:{port}")
