"""A value that nothing shows, and where one comes from."""

import hmac
import os
from pathlib import Path
from typing import NoReturn, Protocol, Self, final, runtime_checkable

from soth_mitm._dataplane.http.messages import RawRequest

_UNFIT = {b"\r": "a carriage return", b"\n": "a line feed", b"\0": "a NUL"}


@final
class Secret:
    """A value that is not shown by accident: its `repr` and `str` are `Secret(***)`.

    It cannot be pickled or hashed. Two are compared in constant time; their lengths may show. `reveal` is the way to the value.
    """

    __slots__ = ("_value",)

    _value: bytes

    def __init__(self, value: str | bytes) -> None:
        """`value` has at least one byte and no CR, LF or NUL; a `str` is taken as UTF-8. `ValueError` and `TypeError` do not show it."""
        if isinstance(value, str):
            try:
                value = value.encode()
            except UnicodeEncodeError:
                # the original shows the value
                raise ValueError("a secret has a lone surrogate, which UTF-8 has no bytes for") from None
        if not isinstance(value, bytes):
            raise TypeError(f"expected str or bytes as a secret, got {type(value).__name__}")
        if not value:
            raise ValueError("a secret is empty")
        for byte, name in _UNFIT.items():
            if byte in value:
                raise ValueError(f"a secret contains {name}, which no header can hold")
        object.__setattr__(self, "_value", bytes(value))

    @classmethod
    def from_env(cls, name: str) -> Self:
        """Return what the environment variable `name` holds; `ValueError` if it is not set, or cannot be a secret."""
        value = os.environb.get(os.fsencode(name)) if os.supports_bytes_environ else os.environ.get(name)
        if value is None:
            raise ValueError(f"the environment variable {name} is not set")
        try:
            return cls(value)
        except ValueError as error:
            raise ValueError(f"{error} (in the environment variable {name})") from None

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """Return what the file holds, less one line end behind it; `OSError` if it cannot be read, `ValueError` if it is no secret."""
        value = Path(path).read_bytes()
        try:
            return cls(without_line_end(value))
        except ValueError as error:
            raise ValueError(f"{error} (in {os.fspath(path)})") from None

    def reveal(self) -> bytes:
        """Return the value. There is no other way to it."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return hmac.compare_digest(self._value, other._value) if isinstance(other, Secret) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Secret cannot be changed (tried to set {name!r})")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Secret cannot be changed (tried to delete {name!r})")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret cannot be pickled; pass where it comes from")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


def without_line_end(value: bytes) -> bytes:
    """Return a value without the one line end that editors and programs put behind it."""
    return value.removesuffix(b"\n").removesuffix(b"\r") if value.endswith(b"\n") else value


@runtime_checkable
class CredentialSource(Protocol):
    """Where the value of a credential comes from, in code."""

    ttl: float
    """Seconds for which a value is used before it is asked for again."""

    async def resolve(self, name: str, request: RawRequest) -> Secret:
        """Return the value.

        When: when a request needs it and none is known that is young enough, once for all requests that wait for it; never while bytes
        are relayed. Gets: the credential's placeholder, and the first request that needs it, as it came from the client.
        Deadline: `handler.request_timeout_ms`. Failure: counted; the requests are answered 502 `credential_unavailable`.
        """
