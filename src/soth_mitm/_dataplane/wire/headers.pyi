from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, TypeVar, final, overload

_Default = TypeVar("_Default")

CREDENTIAL_NAMES: frozenset[bytes]
CREDENTIAL_PARTS: tuple[bytes, ...]

@final
class Headers:
    """The headers of a message, or its trailers: in the order and the spelling in which they came, looked up without regard to case.

    A header may occur several times: ``headers["name"]`` and `get` give its first value, `get_all` every one. Values are `str`, decoded as
    Latin-1, so that each byte is one character; `raw` has the bytes.
    """

    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __init__(self, headers: Headers | Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]] = ()) -> None: ...
    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        """All headers as a list of (name, value) pairs of bytes, as received."""
    @overload
    def get(self, name: str, default: None = None) -> str | None:
        """Return the first value of a header, `default` when there is none."""
    @overload
    def get(self, name: str, default: _Default) -> str | _Default: ...
    def get_all(self, name: str) -> list[str]:
        """Return every value of a header in the order received; an empty list when there is none."""
    def keys(self) -> list[str]:
        """Return the names as received, one for each header; a repeated header is there repeatedly."""
    def values(self) -> list[str]:
        """Return the values, one for each header."""
    def items(self) -> list[tuple[str, str]]:
        """Return (name, value) pairs of str, one for each header."""
    def __getitem__(self, name: str, /) -> str: ...
    def __contains__(self, name: object, /) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def __eq__(self, other: object) -> bool: ...
