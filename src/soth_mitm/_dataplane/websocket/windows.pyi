from typing import final

WINDOWS_STATE_NAMES: tuple[str, ...]
WINDOWS_INPUT_NAMES: tuple[str, ...]

@final
class Windows:
    def __new__(cls, bits: int, takeover: bool = True, recompresses: bool = True) -> Windows: ...
    @property
    def state(self) -> int: ...
    @property
    def is_compressed(self) -> bool: ...

def windows_transitions() -> dict[str, dict[str, str]]:
    """Return {state: {input: state that follows}} of the windows of one direction."""
