"""A TLS 1.2 server's first flight made by hand, for servers that no library would let anybody be."""

from __future__ import annotations

import os
import socket

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from support.certs import PrivateKey
from support.hellos import vector

TLS_1_0, TLS_1_2 = 0x0301, 0x0303
ECDHE_ECDSA_AES128_GCM = 0xC02B
RSA_RC4_SHA = 0x0005
INTERNAL_ERROR, ACCESS_DENIED, UNRECOGNIZED_NAME = 80, 49, 112

_HANDSHAKE, _ALERT = 22, 21
_FATAL = 2
_SECURE_RENEGOTIATION = b"\xff\x01\x00\x01\x00"
_NAMED_CURVE, _P256, _ECDSA_SHA256 = b"\x03", b"\x00\x17", b"\x04\x03"


def read_hello(sock: socket.socket) -> bytes:
    """Read the record that holds a ClientHello; return the message."""
    header = _exactly(sock, 5)
    return _exactly(sock, int.from_bytes(header[3:5]))


def alert(description: int, level: int = _FATAL) -> bytes:
    """Return an alert in the clear."""
    return _record(_ALERT, bytes((level, description)))


def server_hello(*, version: int = TLS_1_2, cipher: int = ECDHE_ECDSA_AES128_GCM, random: bytes = bytes(32)) -> bytes:
    """Return a ServerHello that chooses `version` and `cipher`."""
    body = version.to_bytes(2) + random + vector(b"", 1) + cipher.to_bytes(2) + b"\x00" + vector(_SECURE_RENEGOTIATION, 2)
    return _message(2, body)


def certificates(*ders: bytes) -> bytes:
    """Return a Certificate message with whatever bytes are given for certificates."""
    return _message(11, vector(b"".join(vector(der, 3) for der in ders), 3))


def flight(hello: bytes, der: bytes, key: PrivateKey) -> bytes:
    """Return the whole flight with `der` as the certificate and a key exchange that `key` has signed, be it the certificate's or not."""
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    client_random, random = hello[6:38], os.urandom(32)
    share = ec.generate_private_key(ec.SECP256R1()).public_key()
    point = share.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    parameters = _NAMED_CURVE + _P256 + vector(point, 1)
    signature = key.sign(client_random + random + parameters, ec.ECDSA(hashes.SHA256()))
    exchange = _message(12, parameters + _ECDSA_SHA256 + vector(signature, 2))
    return server_hello(random=random) + certificates(der) + exchange + _message(14, b"")


def _message(kind: int, body: bytes) -> bytes:
    message = bytes([kind]) + vector(body, 3)
    return b"".join(_record(_HANDSHAKE, message[at : at + 16384]) for at in range(0, len(message), 16384))


def _record(kind: int, data: bytes) -> bytes:
    return bytes([kind]) + TLS_1_2.to_bytes(2) + vector(data, 2)


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise EOFError("the client closed the connection")
        data += more
    return data
