from typing import final

@final
class SessionStream:
    """One stream of a session."""

    @property
    def id(self) -> int: ...
    owner: object
    @property
    def has_ended(self) -> bool: ...
    @property
    def protocol(self) -> bytes | None: ...

@final
class WriteRing:
    """The streams that wait for their turn, the one that has waited longest first."""
