from typing import final

FRAMES_STATE_NAMES: tuple[str, ...]
FRAMES_INPUT_NAMES: tuple[str, ...]

@final
class FrameReader:
    def __new__(cls, from_client: bool, may_compress: bool = False, is_foreign: bool = False) -> FrameReader: ...
    @property
    def from_client(self) -> bool: ...
    @property
    def may_compress(self) -> bool: ...
    @property
    def is_foreign(self) -> bool: ...
    @property
    def state(self) -> int: ...
    @property
    def violation(self) -> int: ...
    def steps(self, data: bytes) -> tuple[list[tuple[str, int, int, bytes]], int]:
        """Read what lies in `data`: (steps, octets taken).

        A step is ("head", FIN, RSV and opcode, octets of payload, key or b""), ("payload", 0,
        phase, unmasked octets), or ("ignored", 0, octets, b"").
        """

def make_frame_head(bits: int, length: int, key: bytes = b"") -> bytes:
    """Return the head of a frame. `bits` are FIN, RSV and opcode; `key` has no octets or four."""

def judge_close(payload: bytes) -> int:
    """Return what is wrong with the payload of a Close, an index of VIOLATION_NAMES; 0: nothing."""

def frames_transitions() -> dict[str, dict[str, str]]:
    """Return {state: {input: state that follows}}. An input that is missing is a violation."""
