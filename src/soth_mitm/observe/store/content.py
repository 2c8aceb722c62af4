"""How content lies in a store: in pieces of about 64 KiB, compressed; the first one of a side begins with the head."""

import sys
from typing import TypeVar

import msgspec

from soth_mitm.observe.flow_record import Fields

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

T = TypeVar("T", bound=msgspec.Struct)

PIECE_SIZE = 65_536
"""Bytes of a body in one piece."""
LONGEST_PIECE = 1 << 26
"""Bytes of one piece that are read: what a file that is not ours could make of it."""
_SHORT = 96
_MAGIC = b"\x28\xb5\x2f\xfd"


class StoredMessage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One message of a WebSocket."""

    at_us: int
    """Microseconds since the flow's start."""
    to_client: bool
    opcode: int
    """1 text, 2 binary, 8 close."""
    size: int
    """Bytes of the whole message."""
    data: bytes
    """Of a text, as much as is kept; of a Close code and reason; of a binary one nothing."""


class StoredPiece(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One piece of one side of a flow."""

    fields: Fields = ()
    """Of the head, in the first piece."""
    chunks: tuple[tuple[int, bytes], ...] = ()
    """Of a body, its content codings removed: microseconds since the flow's start, and the octets."""
    messages: tuple[StoredMessage, ...] = ()
    trailers: Fields = ()
    flags: int = 0


SHORTENED, UNDECODED, BINARY = 1, 2, 4
"""Flags of a piece: more of the body came than is kept; its content coding could not be removed; it is no text, and not kept."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(StoredPiece)


class PieceCoder:
    """Makes pieces into blobs; for one thread at a time."""

    def __init__(self) -> None:
        self._compressor = zstd.ZstdCompressor(level=1)

    def encode(self, piece: StoredPiece) -> bytes:
        """Return the blob."""
        return self.packed(_encoder.encode(piece), _SHORT)

    def packed(self, data: bytes, least: int) -> bytes:
        """Return octets, compressed if there are at least so many."""
        return data if len(data) < least else self._compressor.compress(data, zstd.ZstdCompressor.FLUSH_FRAME)


def decode_piece(blob: bytes) -> StoredPiece:
    """Return the piece of a blob. `ValueError`: it is none."""
    try:
        return _decoder.decode(_unpacked(blob))
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"a piece cannot be read: {error}") from error


def _unpacked(blob: bytes) -> bytes:
    if not blob.startswith(_MAGIC):
        return blob
    try:
        return zstd.ZstdDecompressor().decompress(blob, LONGEST_PIECE)
    except zstd.ZstdError as error:
        raise ValueError(f"it cannot be decompressed: {error}") from error


def encode_record(record: msgspec.Struct, coder: PieceCoder) -> bytes:
    """Return a struct as a blob, compressed if that pays."""
    return coder.packed(_encoder.encode(record), 512)


def decode_record(blob: bytes, kind: type[T]) -> T:
    """Return the struct of a blob. `ValueError`: it is none."""
    try:
        return msgspec.msgpack.decode(_unpacked(blob), type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"a record cannot be read: {error}") from error
