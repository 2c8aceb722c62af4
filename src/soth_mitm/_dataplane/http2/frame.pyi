ERROR_CODE_NAMES: tuple[str, ...]
FRAME_NAMES: dict[int, str]
FAULT_TEXTS: dict[int, str]

def name_error_code(code: int) -> str:
    """Return `"PROTOCOL_ERROR"`, or `"0x1f"` for a code without a name."""

def inspect_frame(data: bytes) -> tuple[int, int, int, int, bytes | None]:
    """Read the frame at the start of `data`: (payload length, type, flags, stream, content).

    `content` is the payload without padding, priority and promised stream; None when the payload is
    not whole. Raises ValueError for a frame that is malformed whatever the connection's state, with
    the code's name and a text.
    """

def make_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame as it is on the wire."""
