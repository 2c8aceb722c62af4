"""What two peers said to each other, read by the parsers alone: whole messages, in order, without the exchange under test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from soth_mitm._dataplane.http1.framing import BodyReader
from soth_mitm._dataplane.http1.head_parser import HeadReader
from soth_mitm._dataplane.wire.head import Head
from soth_mitm.errors import WireError
from support.feed import sent_on

LIMIT = 1 << 20
SWITCHED = "protocols were switched"


@dataclass
class Message:
    """One message, as far as it went; `raw` is its body with framing, as it is sent on."""

    head: Head
    body: BodyReader
    raw: bytearray = field(default_factory=bytearray)
    content: bytearray = field(default_factory=bytearray)
    trailers: bytes = b""

    @property
    def complete(self) -> bool:
        return self.body.done


class Stream:
    """One direction of a connection, read as it is fed. `fault` says why reading stopped, `rest` are the bytes it stopped at.

    `switched` is the 101 after which it is no longer read.
    """

    def __init__(self, begin: Callable[[Head], BodyReader | None], is_request: bool, limit: int = LIMIT) -> None:
        self.messages: list[Message] = []
        self.fault = ""
        self.rest = b""
        self.switched: Message | None = None
        self._begin = begin
        self._is_request = is_request
        self._limit = limit
        self._reader = HeadReader(is_request, limit)

    @property
    def at_boundary(self) -> bool:
        """Nothing is under way: the last message is complete and no byte of a next one is here."""
        return not self.rest and not self.fault and (not self.messages or self.messages[-1].complete)

    def feed(self, data: bytes) -> None:
        self.rest += data
        try:
            while not self.fault and self.rest and self._step():
                pass
        except WireError as error:
            self.fault = f"{error.status} {error}"

    def _step(self) -> bool:
        if self.messages and not self.messages[-1].complete:
            message = self.messages[-1]
            taken, content, trailers = message.body.feed(self.rest)
            message.trailers += trailers
            message.raw += sent_on(message.body, self.rest[:taken], trailers)
            message.content += content
            self.rest = self.rest[taken:]
            return taken > 0
        parsed = self._reader.feed(self.rest)
        if parsed is None:
            return False
        head, used = parsed
        self.rest = self.rest[used:]
        self._reader = HeadReader(self._is_request, self._limit)
        body = self._begin(head)
        if body is None:
            self.fault = SWITCHED
            self.switched = Message(head, BodyReader.of_response(head))
            return False
        self.messages.append(Message(head, body))
        return True


def request_stream(limit: int = LIMIT, on_head: Callable[[], None] | None = None) -> Stream:
    """What a client says; `on_head` is called before a request is taken up."""

    def begin(head: Head) -> BodyReader:
        if on_head is not None:
            on_head()
        return BodyReader.of_request(head, limit)

    return Stream(begin, True, limit)


def response_stream(requests: Stream) -> Stream:
    """What is answered to `requests`: interim responses are messages without content, and do not count."""

    def begin(head: Head) -> BodyReader | None:
        if head.status == 101:
            return None
        finals = sum(message.head.status >= 200 for message in stream.messages)
        asked = requests.messages[finals].head if finals < len(requests.messages) else None
        if asked is None:
            return BodyReader.of_response(head, trailer_limit=LIMIT)
        if asked.method == "CONNECT" and head.status < 300:
            # what follows is the tunnel's (RFC 9112 section 6.3)
            return BodyReader()
        return BodyReader.of_response(head, asked.method.encode(), LIMIT)

    stream = Stream(begin, False)
    return stream


def finals(stream: Stream) -> list[Message]:
    """The responses that answer something."""
    return [message for message in stream.messages if message.head.status >= 200]
