from typing import final

FAULT_TEXTS: dict[int, str]

@final
class WindowPair:
    """A window of each direction, for tests and tools; a session keeps its own as structs.

    What is not allowed raises ValueError with the code's name and a text.
    """

    def __init__(self, size: int = 65535) -> None: ...
    def receive(self, length: int, slack: int = 0) -> None:
        """So much came."""

    def take(self, length: int, now: float = 0.0, round_trip: float = 0.0, most: int = 0, waits: bool = False) -> int:
        """So much was taken; returns what is to be announced."""

    def expect(self, length: int, most: int) -> int:
        """So much is announced by a head; returns what is to be announced."""

    def shift(self, difference: int) -> None:
        """Our SETTINGS changed."""

    def widen(self, increment: int) -> None:
        """A WINDOW_UPDATE came."""

    def shift_sending(self, difference: int) -> None:
        """The peer's SETTINGS changed."""

    @property
    def left(self) -> int:
        """What the peer may send."""

    @property
    def size(self) -> int:
        """What its window is filled up to."""

    @property
    def send_left(self) -> int:
        """What we may send."""
