"""The headers of a message as users see them; the bytes stay where the wire put them until somebody asks."""

from collections.abc import Mapping

import cython

from soth_mitm._dataplane.wire.head cimport FIELD_CONTENT_ENCODING, Head
from soth_mitm._dataplane.memory.view cimport view_bytes


CREDENTIAL_NAMES = frozenset((b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"))
# `x-api-key`, `x-goog-api-key`, `x-amz-security-token`, `private-token`, `x-csrf-token`, `x-client-secret` and their like
CREDENTIAL_PARTS = (b"api-key", b"apikey", b"access-key", b"auth-key", b"token", b"secret", b"password", b"credential")


cdef Head known(Head head):
    """Refuse to work on a message that was made without its head, which only `Class.__new__` can do."""
    if head is None:
        raise TypeError("this object was not made by build()")
    return head


cdef bytes field_bytes(object text):
    if isinstance(text, bytes):
        return text
    if isinstance(text, str):
        return text.encode("latin-1")
    raise TypeError(f"a header's name and value must be str or bytes, not {type(text).__name__}")


cdef list pairs_of(object headers):
    """Return what a user gave as headers as a list of (bytes, bytes)."""
    cdef list pairs = []
    if isinstance(headers, Headers):
        return list((<Headers>headers).fields())
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        try:
            pairs.append((field_bytes(name), field_bytes(value)))
        except UnicodeEncodeError:
            raise ValueError(f"header {name!r}: a str must be Latin-1; give bytes for anything else") from None
    return pairs


cdef bytes block_of(list pairs):
    return b"".join([name + b": " + value + b"\r\n" for name, value in pairs])


@cython.final
@cython.freelist(64)
cdef class Headers:
    """The headers of a message, or its trailers: in the order and the spelling in which they came, looked up without regard to case.

    A header may occur several times: ``headers["name"]`` and `get` give its first value, `get_all` every one. Values are `str`, decoded as
    Latin-1, so that each byte is one character; `raw` has the bytes.
    """

    def __init__(self, headers=()):
        self.pairs = pairs_of(headers)

    cdef list fields(self):
        """Return the pairs, made once; the list is never changed or given away."""
        cdef int at
        if self.pairs is None:
            self.pairs = []
            if self.head is not None:
                for at in range(self.head.count):
                    field = self.head.fields[at]
                    self.pairs.append((view_bytes(self.head.span(field.line, field.name_len)),
                                       view_bytes(self.head.span(field.value, field.value_len))))
            elif self.block is not None:
                for line in self.block.split(b"\r\n"):
                    name, colon, value = line.partition(b":")
                    if colon:
                        self.pairs.append((name, value.strip(b" \t")))
        return self.pairs

    cdef bytes first(self, object name):
        cdef bytes wanted = lower_name(name)
        cdef bytes key
        cdef int at
        if self.head is not None:
            at = self.head.find(wanted, len(wanted))
            return None if at < 0 else view_bytes(self.head.span(self.head.fields[at].value, self.head.fields[at].value_len))
        for key, value in self.fields():
            if len(key) == len(wanted) and key.lower() == wanted:
                return value
        return None

    @property
    def raw(self):
        """All headers as a list of (name, value) pairs of bytes, as received."""
        return list(self.fields())

    def get(self, name, default=None):
        """Return the first value of a header, `default` when there is none."""
        value = self.first(name)
        return default if value is None else value.decode("latin-1")

    def get_all(self, name):
        """Return every value of a header in the order received; an empty list when there is none."""
        cdef bytes wanted = lower_name(name)
        return [value.decode("latin-1") for key, value in self.fields() if key.lower() == wanted]

    def keys(self):
        """Return the names as received, one for each header; a repeated header is there repeatedly."""
        return [name.decode("latin-1") for name, _ in self.fields()]

    def values(self):
        """Return the values, one for each header."""
        return [value.decode("latin-1") for _, value in self.fields()]

    def items(self):
        """Return (name, value) pairs of str, one for each header."""
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.fields()]

    def __getitem__(self, name):
        value = self.first(name)
        if value is None:
            raise KeyError(name)
        return value.decode("latin-1")

    def __contains__(self, name):
        return isinstance(name, (str, bytes)) and self.first(name) is not None

    def __iter__(self):
        return iter(self.keys())

    def __len__(self):
        return len(self.fields())

    def __eq__(self, other):
        """Compare with other Headers: the same fields in the same order, names without regard to case."""
        if not isinstance(other, Headers):
            return NotImplemented
        return ([(name.lower(), value) for name, value in self.fields()]
                == [(name.lower(), value) for name, value in (<Headers>other).fields()])

    __hash__ = None

    def __repr__(self):
        """The fields, credentials left out: an object's repr ends up in logs."""
        shown = [(name.decode("latin-1"), "***" if is_credential(name) else value.decode("latin-1")) for name, value in self.fields()]
        return f"Headers({shown!r})"

    def __reduce__(self):
        return Headers, (self.raw,)


Mapping.register(Headers)


cdef bint is_credential(bytes name) except -1:
    """Tell by a header's name whether its value lets its holder act for somebody."""
    cdef bytes lower = name.lower()
    return lower in CREDENTIAL_NAMES or any([part in lower for part in CREDENTIAL_PARTS])


cdef bytes lower_name(object name):
    if isinstance(name, bytes):
        return name.lower()
    if not isinstance(name, str):
        raise TypeError(f"a header's name must be str, not {type(name).__name__}")
    # What is not Latin-1 becomes `?`, which no header name contains
    return name.encode("latin-1", "replace").lower()


cdef Headers headers_of_head(Head head):
    cdef Headers headers = Headers.__new__(Headers)
    headers.head = known(head)
    return headers


cdef Headers headers_of_block(bytes block):
    cdef Headers headers = Headers.__new__(Headers)
    headers.block = block
    return headers


cdef bytes content_encoding_of(Head head):
    cdef bytes joined = None
    cdef int at
    for at in range(known(head).count):
        if head.fields[at].name == FIELD_CONTENT_ENCODING:
            value = view_bytes(head.span(head.fields[at].value, head.fields[at].value_len))
            joined = value if joined is None else joined + b", " + value
    return joined
