from asyncio import Future
from typing import final

from soth_mitm._dataplane.http.messages import FrameKind
from soth_mitm._dataplane.memory.waiter import Waiter

KINDS: dict[int, FrameKind]

@final
class Injection:
    """A message that the handler sends unasked."""

    def __new__(cls, payload: bytes, is_text: bool, sent: Future[None] | None) -> Injection: ...

class MessageTap(Waiter):
    """Reads the messages of one direction of a WebSocket, which pass meanwhile."""
