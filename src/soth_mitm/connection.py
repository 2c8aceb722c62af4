"""What is known about an accepted connection: its addresses, the process behind it, its TLS facts, its target.

All are immutable values. They are msgspec structs and not dataclasses because several are built for each connection: a frozen
slotted dataclass takes about five times as long to build and fifteen times as long to copy with a change.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

SocketAddress = tuple[str, int]
"""Host (an IP address as text) and port."""


def _now() -> datetime:
    return datetime.now(UTC)


class ProcessInfo(msgspec.Struct, frozen=True, gc=False):
    """The process that owns the client end of a connection. Whatever could not be observed is None.

    Decide by `exe_path` or `uid`, which the kernel says. `exe_name`, `script_path`, `parent_process_name` and `bundle_id` are hints for
    people: a program can call itself what it likes, by a copy under another name, a script's name, or a process title.
    """

    pid: int
    """Process id, unique only while the process lives."""
    bundle_id: str | None = None
    """macOS: `CFBundleIdentifier` of the innermost application bundle that holds the executable."""
    exe_name: str | None = None
    """File name of the executable; for an interpreter, the name of the program that it runs. The client can choose it."""
    exe_path: str | None = None
    """Path of the executable as the kernel says it; for an interpreter, the interpreter's.

    Linux: ends in ` (deleted)` where the file is no longer there, and begins with `/proc/PID/root` where this path is another file for us,
    because the process lives among other mounts (a container, a namespace of its own).
    """
    parent_pid: int | None = None
    """Process id of the parent."""
    parent_process_name: str | None = None
    """Name of the parent as the system keeps it (Linux cuts it after 15 bytes). The parent can choose it."""
    uid: int | None = None
    """Linux, macOS: the real user id, which is that of whoever started the process. None on Windows."""
    interpreter_path: str | None = None
    """`exe_path` where that is an interpreter (Python, Node, Ruby, Java and others), which runs whatever it is given; else None."""
    script_path: str | None = None
    """Path of the script that an interpreter was told to run, if it is a file; read from the command line, which the client can choose."""


class TcpV4(msgspec.Struct, frozen=True, gc=False):
    """An IPv4 connection: `local` is our socket's address, `remote` the client's."""

    local: SocketAddress
    remote: SocketAddress


class TcpV6(msgspec.Struct, frozen=True, gc=False):
    """An IPv6 connection: `local` is our socket's address, `remote` the client's."""

    local: SocketAddress
    remote: SocketAddress


class UnixDomain(msgspec.Struct, frozen=True, gc=False):
    """A connection over a Unix-domain socket; `path` is where we listen."""

    path: str


SocketFamily = TcpV4 | TcpV6 | UnixDomain
"""Where a connection came in."""


class TlsInfo(msgspec.Struct, frozen=True, gc=False):
    """TLS facts of the client's side and, with the prefix `upstream_`, of the upstream's. Observed, never inferred; None is unknown.

    The upstream's are those of the connection that carries the request; where that is not chosen yet, as in `on_request`, those of the
    latest handshake with the same origin, or None: where `on_request` decides, nothing is dialled before the first request is allowed.
    """

    sni: str | None = None
    """Server name that the client asked for."""
    negotiated_proto: str | None = None
    """ALPN protocol agreed with the client."""
    version: str | None = None
    """Protocol version, such as `TLSv1.3`."""
    cipher: str | None = None
    """Cipher suite."""
    resumed: bool | None = None
    """Whether an earlier session was resumed."""
    ja3: str | None = None
    """JA3 digest of the ClientHello, hexadecimal."""
    ja4: str | None = None
    """JA4 fingerprint of the ClientHello."""
    upstream_version: str | None = None
    upstream_cipher: str | None = None
    upstream_proto: str | None = None
    """ALPN protocol agreed with the upstream."""
    upstream_resumed: bool | None = None
    upstream_certificate_sha256: str | None = None
    """SHA-256 of the upstream's certificate (DER), hexadecimal."""


class ConnectionMeta(msgspec.Struct, frozen=True, gc=False):
    """One accepted connection. What is learnt later (the target, TLS facts) appears in a changed copy, never in this object."""

    connection_id: UUID
    """Unique across processes."""
    socket_family: SocketFamily
    """Our address and the client's."""
    process_info: ProcessInfo | None = None
    """The client's process; None if it is unknown, on another machine, or not looked up."""
    tls_info: TlsInfo | None = None
    """None until a TLS handshake was seen."""
    target: SocketAddress | None = None
    """Host and port that the client named, None until it did."""
    connected_at: datetime = msgspec.field(default_factory=_now)
    """When the connection was accepted, in UTC."""

    def replace(self, **changes: Any) -> ConnectionMeta:
        """Return a copy with the named fields changed; an unknown name is a TypeError."""
        return msgspec.structs.replace(self, **changes)
