from typing import final

@final
class MessageTap:
    """Reads the messages of one direction of a WebSocket, which pass meanwhile."""
