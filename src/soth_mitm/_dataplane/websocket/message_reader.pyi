from typing import final

EVENT_NAMES: tuple[str, ...]

@final
class MessageReader:
    def __new__(
        cls,
        from_client: bool,
        most: int,
        may_compress: bool = False,
        takeover: bool = True,
        when_long: int = 0,
    ) -> MessageReader: ...
    @property
    def kind(self) -> int: ...
    @property
    def payload(self) -> bytes | None: ...
    @property
    def is_complete(self) -> bool: ...
    @property
    def is_compressed(self) -> bool: ...
    @property
    def begin(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def violation(self) -> int: ...
    def read(self, data: bytes) -> tuple[str, int]:
        """Take what `data` brings up to the next event: its name, how many octets were taken."""

    def renew_turn(self) -> None:
        """State that a turn of the loop begins, in which TURN_OCTETS may be inflated."""

    def show_what_came(self) -> bool:
        """Tell what is here of a message, and keep no more of it. False: there is none."""

    def skip_messages(self) -> None:
        """Read no messages from here on, only frames."""

    def held_octets(self) -> int:
        """Return how many octets are held of a message."""
