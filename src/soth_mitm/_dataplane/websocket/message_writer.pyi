from typing import final

@final
class MessageWriter:
    def __new__(cls, masks: bool) -> MessageWriter: ...
    def write_frame(self, bits: int, payload: bytes) -> bytes:
        """Return one frame; `bits` are FIN, RSV and opcode."""

    def write_message(self, opcode: int, payload: bytes, is_compressed: bool = False) -> bytes:
        """Return a message in one frame."""

    def write_close(self, code: int, reason: bytes = b"") -> bytes:
        """Return a Close. ValueError: it must not be sent with this code or reason."""
