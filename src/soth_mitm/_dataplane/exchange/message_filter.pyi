from typing import final

from soth_mitm._dataplane.exchange.message_tap import MessageTap
from soth_mitm._dataplane.http.messages import FrameKind

KINDS: dict[int, FrameKind]

@final
class MessageFilter(MessageTap):
    """Holds each message of one direction of a WebSocket until it is decided about."""
