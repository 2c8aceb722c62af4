"""ClientHello messages made from lists of code points, for parsers and fingerprints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Extension = tuple[int, bytes]


def vector(data: bytes, length_size: int) -> bytes:
    return len(data).to_bytes(length_size) + data


def uint16s(values: Iterable[int]) -> bytes:
    return b"".join(value.to_bytes(2) for value in values)


def server_name(name: bytes) -> Extension:
    return 0, vector(b"\x00" + vector(name, 2), 2)


def alpn(*names: bytes) -> Extension:
    return 16, vector(b"".join(vector(name, 1) for name in names), 2)


def groups(*values: int) -> Extension:
    return 10, vector(uint16s(values), 2)


def point_formats(*values: int) -> Extension:
    return 11, vector(bytes(values), 1)


def signature_algorithms(*values: int) -> Extension:
    return 13, vector(uint16s(values), 2)


def supported_versions(*values: int) -> Extension:
    return 43, vector(uint16s(values), 1)


def hello_body(
    *,
    version: int = 0x0303,
    session_id: bytes = b"",
    ciphers: Sequence[int] = (0x1301,),
    extensions: Sequence[Extension] | None = (),
) -> bytes:
    """Return a ClientHello without its header; with `extensions` None it ends after the compression methods."""
    body = version.to_bytes(2) + bytes(32) + vector(session_id, 1) + vector(uint16s(ciphers), 2) + b"\x01\x00"
    if extensions is None:
        return body
    return body + vector(b"".join(code.to_bytes(2) + vector(data, 2) for code, data in extensions), 2)


def handshake(body: bytes, kind: int = 1) -> bytes:
    return bytes([kind]) + vector(body, 3)


def records(message: bytes, size: int = 16384) -> bytes:
    """Cut a handshake message into records of `size` bytes each."""
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + vector(piece, 2) for piece in pieces)
