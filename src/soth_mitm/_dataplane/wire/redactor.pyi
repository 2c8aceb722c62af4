from collections.abc import Iterable, Mapping
from typing import final

@final
class SearchedStrings:
    def __new__(cls, texts: Iterable[bytes] | Mapping[bytes, bytes]) -> SearchedStrings: ...
    def is_in(self, data: bytes) -> bool:
        """Tell whether one of the strings is in `data`."""

@final
class Redactor:
    @property
    def replaced(self) -> int: ...
    def __new__(cls, searched: SearchedStrings, replacement: bytes | None = None) -> Redactor: ...
    @property
    def held_bytes(self) -> int:
        """How many bytes wait for what follows; fewer than the longest string has."""
    def feed(self, data: bytes) -> bytes:
        """Return what may leave now that `data` has come."""
    def finish(self) -> bytes:
        """Return what was held back, at the end of the stream. The redactor can begin anew then."""

@final
class Lookout:
    @property
    def has_found(self) -> bool: ...
    @property
    def held_bytes(self) -> int:
        """How many bytes wait for what follows; fewer than the longest string has."""
    def __new__(cls, searched: SearchedStrings) -> Lookout: ...
    def feed(self, data: bytes) -> bytes | None:
        """Return what may leave now that `data` has come; None, from now on, when a string is there."""
    def finish(self) -> bytes | None:
        """Return what was held back, at the end of the stream; None when a string is there."""
    def let_go(self) -> bytes:
        """Return what is held back, at the end of a message that may be answered before more comes.

        What follows is searched with it all the same.
        """
