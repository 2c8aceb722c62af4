"""Every exception that the package raises on purpose.

Errors of the embedding API derive from `MitmError`. Wire errors (`WireError` and below) are used inside and reach users in
`on_tls_failure` and in logs; they carry which side broke what and whether trying again on another connection is safe.
"""

from __future__ import annotations

from typing import Literal

Side = Literal["client", "upstream"]


class MitmError(Exception):
    """Base of all errors of this package."""


class InvalidConfigError(MitmError, ValueError):
    """The configuration is refused as a whole; nothing of it was applied.

    `key` is the dotted key at fault, `""` when the document itself cannot be read.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}" if key else message)
        self.key = key
        self.message = message


class BindError(MitmError, OSError):
    """A listening socket could not be opened; `errno` is the system's, the message says what to do."""

    def __str__(self) -> str:
        # without the number in front, which the message says in words
        return str(self.strerror or super().__str__())


class ShutdownTimeoutError(MitmError, TimeoutError):
    """The drain deadline passed; `aborted` connections were cut."""

    def __init__(self, aborted: int, timeout: float) -> None:
        super().__init__(f"{aborted} connection(s) were still open after {timeout:g} s and were aborted")
        self.aborted = aborted
        self.timeout = timeout


class EventSinkError(MitmError):
    """An event sink cannot be attached: it could not be opened, or serves another proxy. `sink` is its name."""

    def __init__(self, sink: str, message: str) -> None:
        super().__init__(f"event sink {sink}: {message}")
        self.sink = sink


class CaError(MitmError):
    """Base of what can go wrong with the CA's files and the trust stores."""


class CaPermissionError(CaError, PermissionError):
    """A CA file is not ours to read or write, or its key is readable by others."""


class CaMaterialError(CaError, ValueError):
    """A CA file does not hold what it should: not PEM, not a CA, key and certificate of different pairs."""


class CaOperationError(CaError):
    """A trust-store tool ran and failed, or a file could not be written; the message carries the tool's output or the system's words."""


class CaUnsupportedError(CaError):
    """This platform, or what is installed on it, offers no such trust store."""


class DecisionError(MitmError):
    """A decision was refused, because its arguments are not what they must be; raised where it is made.

    A handler that raises it has decided to block and failed to say how: what it decides about is blocked, whatever
    `handler.failure_policy` says.
    """


class DecisionValueError(DecisionError, ValueError):
    """An argument of a decision has a value that cannot be used; the message names the argument."""


class DecisionTypeError(DecisionError, TypeError):
    """An argument of a decision has the wrong type, is missing or is unknown."""


class StoreError(MitmError):
    """A flow store cannot be opened, read or written; the message names its file."""


class FilterError(MitmError, ValueError):
    """A filter of flows cannot be read: `text` at `position`, counted from 0. `hint`, if there is one, says what could be written."""

    def __init__(self, message: str, text: str, position: int, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.text = text
        self.position = position
        self.hint = hint

    def pointed(self) -> str:
        """Return the filter, a caret below the place, and the message, in lines; the filter is as it was given."""
        lines = [self.text, f"{' ' * self.position}^", self.message]
        return "\n".join([*lines, self.hint] if self.hint else lines)


class WireError(MitmError):
    """A peer broke a rule, vanished, or was late.

    `side` says which peer; `retryable` whether the same request may be sent again on another connection without risk;
    `status` what a client is answered when it waits for a response.
    """

    def __init__(self, message: str, *, side: Side, status: int = 502, retryable: bool = False) -> None:
        super().__init__(message)
        self.side: Side = side
        self.status = status
        self.retryable = retryable


class Http2StreamReset(MitmError, ConnectionResetError):
    """A peer ended a stream of HTTP/2 before its message was complete. `code` is the error code that it gave (RFC 9113 section 7)."""

    def __init__(self, code: int, side: Side) -> None:
        super().__init__(f"the {side} reset the stream with error code {code} of HTTP/2")
        self.code = code
        self.side: Side = side


ConnectFailure = Literal["name", "refused", "unreachable", "denied", "itself", "other"]


class ConnectFailedError(WireError):
    """The upstream could not be reached.

    `reason`: its `name` was not resolved, it `refused` the connection or was `unreachable`, its addresses are `denied`, it is this proxy
    `itself`, or something `other`.
    """

    def __init__(
        self, message: str, *, side: Side, reason: ConnectFailure = "unreachable", status: int = 502, retryable: bool = False
    ) -> None:
        super().__init__(message, side=side, status=status, retryable=retryable)
        self.reason: ConnectFailure = reason


class AddressDeniedError(ConnectFailedError):
    """Every address of the upstream is one that may not be connected to (`upstream.denied_addresses`)."""


class StageTimeoutError(WireError, TimeoutError):
    """A peer let a deadline pass; the message names the stage."""


class TlsFailedError(WireError):
    """A TLS handshake failed. `reason` is one of the failure classes of SPEC section 4, `detail` the library's own words.

    `certificate_refused`: the client failed as those do that do not know our CA or pin another certificate. Never true of an upstream.
    """

    def __init__(self, message: str, *, side: Side, reason: str, detail: str, status: int = 502, certificate_refused: bool = False) -> None:
        super().__init__(message, side=side, status=status)
        self.reason = reason
        self.detail = detail
        self.certificate_refused = certificate_refused
