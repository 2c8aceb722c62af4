from collections.abc import Iterable, Mapping, Sequence
from typing import final

from soth_mitm._dataplane.wire.head import Head

@final
class CredentialPlaces:
    """Where the placeholder of one credential is replaced."""

    def __new__(
        cls, number: int, placeholder: bytes, places: Sequence[str], spellings: tuple[frozenset[bytes], ...]
    ) -> CredentialPlaces: ...
    @property
    def number(self) -> int: ...

@final
class Filling:
    def put(self, match: object) -> bytes: ...

@final
class CredentialTerms:
    """What holds for the requests that go one way."""

    def __new__(
        cls,
        forbidden: Iterable[bytes],
        permitted: Iterable[CredentialPlaces],
        wanted: Iterable[bytes],
        redaction: Mapping[bytes, bytes] | None = None,
    ) -> CredentialTerms: ...

@final
class MessageTerms:
    """What holds for the messages of one WebSocket. What stands in several messages is not found."""

@final
class UploadSearch: ...

def filled(terms: CredentialTerms, head: Head, values: dict[int, bytes]) -> tuple[set[int], Head]: ...
def uploaded(
    terms: CredentialTerms,
    head: Head,
    values: dict[int, bytes],
    pieces: Iterable[bytes],
    coding: bytes | None = None,
    grpc: bytes | None = None,
) -> tuple[bytes, bool]: ...
def talked(
    terms: CredentialTerms,
    values: dict[int, bytes],
    payload: bytes,
    from_client: bool,
    is_text: bool = True,
    is_close: bool = False,
    counted: object = None,
) -> bytes | None: ...
def forbids(terms: CredentialTerms, data: bytes | Head) -> bool: ...
