from collections.abc import Iterable
from typing import final

@final
class SearchedStrings:
    def __new__(cls, texts: Iterable[bytes]) -> SearchedStrings: ...

@final
class Redactor:
    @property
    def replaced(self) -> int: ...
    def __new__(cls, searched: SearchedStrings, replacement: bytes) -> Redactor: ...
    @property
    def held_bytes(self) -> int:
        """How many bytes wait for what follows; fewer than the longest string has."""
    def feed(self, data: bytes) -> bytes:
        """Return what may leave now that `data` has come."""
    def finish(self) -> bytes:
        """Return what was held back, at the end of the stream. The redactor can begin anew then."""
