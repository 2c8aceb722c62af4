from asyncio import Future
from typing import final

@final
class OpenWebSockets:
    """WebSockets whose messages are read, while they are open. Belongs to the loop of its proxy."""

    def __contains__(self, key: int, /) -> bool: ...
    def inject(self, flow_id: int, payload: bytes, is_text: bool, to_client: bool, sent: Future[None] | None = None) -> None:
        """Have a message sent at the next border of its direction; `sent` is done then, or fails with LookupError.

        LookupError: no such WebSocket is open, or that direction was closed. Without `sent` nobody waits: BlockingIOError if the messages
        that wait leave no room.
        """
    def close(self, flow_id: int, code: int, reason: bytes) -> bool:
        """Send both sides a Close, and end the WebSocket; False: there is no such one. ValueError: that Close must not be sent."""
    def end_all(self, code: int, reason: bytes) -> None:
        """Let what waits pass, send a Close to both sides of each, and end them."""
