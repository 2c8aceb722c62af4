"""One side of a flow on its way into a store: its content coding is removed, its credentials are masked, it is cut into pieces."""

from soth_mitm._dataplane.wire.decode import Decoder, decoder_for
from soth_mitm.observe.flow_record import Fields, FlowMessage
from soth_mitm.observe.masking import ContentMask, Masker
from soth_mitm.observe.store.content import BINARY, PIECE_SIZE, SHORTENED, UNDECODED, StoredMessage, StoredPiece
from soth_mitm.observe.store.flow_row import media_type

_TEXTS = ("json", "xml", "javascript", "ecmascript", "urlencoded", "graphql", "yaml", "toml", "csv", "jsonl")
# kept though they are no text, since their messages are shown; nothing in them is masked
_MESSAGES = ("application/grpc", "application/vnd.amazon.eventstream")
_NO_TEXTS = ("image/", "audio/", "video/", "font/")
_LOOKED_AT = 512


def is_text(media: str, content: bytes) -> bool:
    """Tell whether a body of this type, or one that begins like this, is text."""
    if media.startswith("text/") or any(word in media for word in _TEXTS):
        return True
    if media.startswith(_NO_TEXTS):
        return False
    start = content[:_LOOKED_AT]
    if b"\0" in start:
        return False
    try:
        start.decode()
    except UnicodeDecodeError as error:
        # a character may be cut at the end
        return error.start > len(start) - 4 and len(content) > len(start) - 4
    return True


class HeadMask:
    """Masks heads. Fields that have nothing to mask are mostly the same ones again: so many of them are remembered."""

    _MOST = 4096
    _LONGEST = 256

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._plain: set[tuple[bytes, bytes]] = set()

    def masked(self, fields: Fields) -> Fields:
        """Return the fields of a head or of trailers, masked."""
        plain = self._plain
        if plain.issuperset(fields):
            return fields
        if len(plain) > self._MOST:
            plain.clear()
        return tuple([field if field in plain else self._field(field) for field in fields])

    def _field(self, field: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        name, value = field
        masked = self._masker.value(name, value)
        if masked == value and len(value) < self._LONGEST:
            self._plain.add(field)
        return name, masked


class SideWriting:
    """One side. `limit` is how many bytes of its body are kept, its content coding removed."""

    def __init__(self, side: int, masker: Masker, heads: HeadMask, limit: int) -> None:
        self.side = side
        self._masker = masker
        self._heads = heads
        self._limit = limit
        self._fields: Fields = ()
        self._is_head_written = False
        self.media = ""
        """Type that the head names, without parameters, in lower case."""
        self._content_type = ""
        self._decoder: Decoder | None = None
        self._mask: ContentMask | None = None
        self._has_begun = False
        self._kept = 0
        self._flags = self._written_flags = 0
        self._chunks: list[tuple[int, bytes]] = []
        self._messages: list[StoredMessage] = []
        self._trailers: Fields = ()
        self._at = 0.0
        self.number = 0
        """Of the next piece."""
        self.written = 0
        """Pieces that are in the file."""

    def head(self, fields: Fields) -> None:
        """The head is there."""
        if not fields or self._fields:
            return
        self._fields = fields
        for name, value in fields:
            # a look at the length is less than one at the letters
            if len(name) == 12 and not self.media and name.lower() == b"content-type":
                self.media = media_type(((name, value),))
                self._content_type = value.decode("latin-1")
            elif len(name) == 16 and name.lower() == b"content-encoding":
                self._decoder = decoder_for(value, self._limit)

    @property
    def is_shortened(self) -> bool:
        """Whether more of the body came than is kept."""
        return bool(self._flags & SHORTENED)

    @property
    def problem(self) -> str | None:
        """Why the content coding could not be removed; None: it could, or there was none."""
        decoder = self._decoder
        return None if decoder is None or decoder.overflow else decoder.error

    def body(self, data: bytes, at: float, is_last: bool = False) -> bytes:
        """More of the body came, or all that is left. Return it without its content coding, and not masked, as much as is kept."""
        decoder = self._decoder
        if decoder is not None:
            data = decoder.feed(data)
            if is_last and decoder.error is None:
                data += decoder.finish()
            if decoder.error is not None:
                self._flags |= SHORTENED if decoder.overflow else UNDECODED
        if not data:
            return data
        room = self._limit - self._kept
        if len(data) > room:
            self._flags |= SHORTENED
            data = data[:room]
            if not data:
                return data
        self._kept += len(data)
        self._at = at
        if not self._has_begun:
            self._has_begun = True
            if self.media.startswith(_MESSAGES):
                pass
            elif is_text(self.media, data):
                self._mask = self._masker.stream(self._content_type)
            else:
                self._flags |= BINARY
        if self._flags & BINARY:
            return data
        if self._mask is None:
            masked = data
        elif is_last:
            masked = self._mask.finish(data)
            self._mask = None
        else:
            masked = self._mask.feed(data)
        if masked:
            self._chunks.append((int(at * 1e6), masked))
        return data

    def message(self, message: FlowMessage) -> None:
        """A message of a WebSocket came."""
        data = message.data[: self._limit] if message.opcode != 2 else b""
        if message.opcode == 1:
            data = self._masker.text(data)
        self._messages.append(StoredMessage(int(message.at * 1e6), message.to_client, message.opcode, message.size, data))

    def miss(self) -> None:
        """Some of the body was not handed over."""
        self._flags |= SHORTENED

    def end(self, trailers: Fields) -> None:
        """The side is over."""
        if self._mask is not None:
            rest = self._mask.finish()
            self._mask = None
            if rest:
                self._chunks.append((int(self._at * 1e6), rest))
        self._trailers = trailers

    def take(self) -> list[StoredPiece]:
        """Return what came since the last time, in pieces."""
        has_head = bool(self._fields) and not self._is_head_written
        if not (has_head or self._chunks or self._messages or self._trailers or self._flags != self._written_flags):
            return []
        fields = self._heads.masked(self._fields) if has_head else ()
        self._is_head_written = self._is_head_written or has_head
        self._written_flags = self._flags
        trailers = self._heads.masked(self._trailers) if self._trailers else ()
        chunks, messages = self._chunks, tuple(self._messages)
        self._chunks, self._messages, self._trailers = [], [], ()
        if sum(len(data) for _, data in chunks) <= PIECE_SIZE:
            return [StoredPiece(fields, tuple(chunks), messages, trailers, self._flags)]
        groups = _cut(chunks)
        pieces = [StoredPiece((), tuple(group), (), (), self._flags) for group in groups]
        pieces[0] = StoredPiece(fields, tuple(groups[0]), messages, (), self._flags)
        if trailers:
            pieces.append(StoredPiece((), (), (), trailers, self._flags))
        return pieces

    def undo(self) -> None:
        """What was taken since the last commit did not come into the file."""
        self.number = self.written
        if self.written == 0:
            self._is_head_written = False
        self._flags |= SHORTENED


def _cut(chunks: list[tuple[int, bytes]]) -> list[list[tuple[int, bytes]]]:
    groups: list[list[tuple[int, bytes]]] = [[]]
    size = 0
    for at, data in chunks:
        start = 0
        while start < len(data):
            if size == PIECE_SIZE:
                groups.append([])
                size = 0
            part = data[start : start + PIECE_SIZE - size]
            groups[-1].append((at, part))
            size += len(part)
            start += len(part)
    return groups
