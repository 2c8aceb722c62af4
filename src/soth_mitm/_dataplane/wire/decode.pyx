"""Remove content codings: ``gzip``, ``x-gzip``, ``deflate`` (zlib-wrapped or raw), ``br``, ``zstd``, and stacks of them.

What is decoded is a copy for handlers and framers; what is forwarded is never touched. So this module is lenient where browsers are (raw
deflate under the name ``deflate``, bytes after the end of a gzip stream) and strict about memory: every call into a library carries the
number of bytes that it may give out.

A request is decided on by what is decoded, and servers do not agree on what follows the first end of a stream: some ignore it, some decode
it as well. So an `exact` decoder refuses what could be read in two ways: bytes after the end, and a zlib header that is the beginning of a
raw stream as well.
"""

import sys
import zlib

import brotli
import cython

from cpython.bytes cimport PyBytes_AS_STRING

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


cdef enum:
    SLICE = 32768      # input per call of a library: what it cannot take yet is copied, so it must be little
    PIECE = 262144     # output per call of a library whose output another one decodes
    MAX_LIMIT = 0x70000000   # as much as the C libraries' 32-bit counters hold on every platform

    GZIP_WINDOW = 31   # wbits of zlib: 16 + 15, a gzip wrapper
    ZLIB_WINDOW = 15
    RAW_WINDOW = -15
    RAW_PREFIX = 5     # bytes of a raw stream before the content of a stored block; every zlib stream is longer
    # RFC 9659: a zstd encoder may not ask more than 8 MiB of an HTTP recipient
    ZSTD_WINDOW_LOG = 23


cdef class _Stage:
    """One coding of a stack. `step` gives out at most about `most` bytes; while `pending`, ``step(b"")`` gives more without more input.

    Not final: the codings derive from it.
    """

    cdef str coding
    cdef object engine             # the library's decompressor, None before the first byte and between members
    cdef bytes rest                # input that the engine has given back
    cdef bint pending
    cdef bint started              # it has seen a byte
    cdef bint complete             # the stream may end here
    cdef bint closed               # whatever follows is not ours
    cdef bint exact                # what could be read in two ways is an error
    cdef int members               # begun since the counter was last reset
    cdef Py_ssize_t produced       # likewise

    def __cinit__(self, str coding):
        self.coding = coding
        self.rest = b""

    cdef bytes step(self, bytes data, Py_ssize_t most):
        raise NotImplementedError

    cdef int begin_member(self, object engine) except -1:
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise ValueError(f"more than {MAX_MEMBERS} members in one body")
        self.engine = engine
        self.complete = False
        return 0

    cdef int end_member(self, bytes rest) except -1:
        self.engine = None
        self.complete = True
        self.rest = rest
        self.pending = len(rest) > 0
        return 0

    cdef int refuse_more(self, bytes data) except -1:
        """Complain, if that is asked for, about bytes that follow the end of the stream."""
        if self.exact and self.complete and data:
            raise ValueError("bytes follow the end of the stream")
        return 0


@cython.final
cdef class _GzipStage(_Stage):
    """RFC 1952, with any number of members; zero padding and foreign bytes after the last one are ignored, as browsers do."""

    cdef bytes step(self, bytes data, Py_ssize_t most):
        data = self.rest + data
        self.rest = b""
        self.pending = False
        if self.engine is None:
            self.refuse_more(data)
            if self.complete:
                data = self.next_member(data)
            if not data:
                return b""
            self.begin_member(zlib.decompressobj(GZIP_WINDOW))
        out = self.engine.decompress(data, most)
        if self.engine.eof:
            self.end_member(self.engine.unused_data)
        else:
            self.rest = self.engine.unconsumed_tail
            self.pending = len(self.rest) > 0 or len(out) >= most
        return out

    cdef bytes next_member(self, bytes data):
        """Return the bytes of a further member, b"" when there is none (yet)."""
        if self.closed:
            return b""
        data = data.lstrip(b"\0")
        if data[:2] == b"\x1f\x8b":
            return data
        if data == b"\x1f":
            self.rest = data
        elif data:
            self.closed = True
        return b""


@cython.final
cdef class _DeflateStage(_Stage):
    """RFC 9110 section 8.4.1.2 asks for the zlib wrapper (RFC 1950); some servers leave it out. The first two bytes tell."""

    cdef bytes step(self, bytes data, Py_ssize_t most):
        data = self.rest + data
        self.rest = b""
        self.pending = False
        if self.complete:
            self.refuse_more(data)
            return b""
        if self.engine is None:
            if len(data) < 2 or (self.exact and is_zlib_header(data[0], data[1]) and len(data) < RAW_PREFIX):
                self.rest = data
                return b""
            if self.exact and is_zlib_header(data[0], data[1]) and is_stored_block(data):
                raise ValueError("the stream can be read with and without the zlib wrapper")
            self.engine = zlib.decompressobj(ZLIB_WINDOW if is_zlib_header(data[0], data[1]) else RAW_WINDOW)
        out = self.engine.decompress(data, most)
        if self.engine.eof:
            self.complete = True
            self.refuse_more(self.engine.unused_data)
        else:
            self.rest = self.engine.unconsumed_tail
            self.pending = len(self.rest) > 0 or len(out) >= most
        return out


cdef bint is_zlib_header(unsigned char first, unsigned char second) noexcept nogil:
    """Tell a zlib header; a raw stream beginning so would be a stored block with padding bits set, which no encoder writes."""
    return (first & 0x0F) == 8 and (first >> 4) <= 7 and (first * 256 + second) % 31 == 0


cdef bint is_stored_block(bytes data) noexcept:
    """Tell whether a stream with a zlib header begins, without it, with a stored block: length and complement (RFC 1951 section 3.2.4)."""
    cdef const unsigned char* byte = <const unsigned char*>PyBytes_AS_STRING(data)
    return len(data) >= RAW_PREFIX and byte[1] ^ byte[3] == 0xFF and byte[2] ^ byte[4] == 0xFF


@cython.final
cdef class _BrotliStage(_Stage):
    """RFC 7932. The library keeps input by itself, and lets its limit be exceeded by the block that it is filling."""

    cdef bytes step(self, bytes data, Py_ssize_t most):
        if self.complete:
            self.pending = False
            if data:
                raise ValueError("bytes follow the end of the stream")
            return b""
        if self.engine is None:
            self.engine = brotli.Decompressor()
        out = self.engine.process(data, output_buffer_limit=most)
        self.complete = self.engine.is_finished()
        # a library that has taken all input says that it takes more, whatever it has not given out yet
        self.pending = not self.complete and (len(out) >= most or not self.engine.can_accept_more_data())
        return out


@cython.final
cdef class _ZstdStage(_Stage):
    """RFC 8878, with any number of frames, the window bounded by RFC 9659."""

    cdef bytes step(self, bytes data, Py_ssize_t most):
        data = self.rest + data
        self.rest = b""
        if self.engine is None:
            self.pending = False
            if not data:
                return b""
            self.refuse_more(data)
            self.begin_member(zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}))
        out = self.engine.decompress(data, most)
        if self.engine.eof:
            self.end_member(self.engine.unused_data)
        else:
            self.pending = not self.engine.needs_input
        return out


cdef _Stage stage_for(str coding):
    """Return a stage for a coding in lower case, None when it is not known."""
    if coding == "gzip" or coding == "x-gzip":
        return _GzipStage(coding)
    if coding == "deflate":
        return _DeflateStage(coding)
    if coding == "br":
        return _BrotliStage(coding)
    if coding == "zstd":
        return _ZstdStage(coding)
    return None


cdef bytes step(Decoder decoder, _Stage stage, bytes data, Py_ssize_t most):
    """Step a stage of `decoder`; what its library complains about becomes `error`."""
    try:
        return stage.step(data, most)
    except (zlib.error, brotli.error, zstd.ZstdError, ValueError) as error:
        decoder.error = f"{stage.coding}: {error}"
        return b""


@cython.final
cdef class Decoder:
    """Incremental decoder of a stack of content codings; `decoder_for` makes one."""

    def __cinit__(self):
        self.stages = []

    cdef int begin(self) except -1:
        cdef _Stage stage
        if self.per_feed:
            self.allowance = self.limit
            for stage in self.stages:
                stage.members = 0
                stage.produced = 0
        return 0

    cdef Py_ssize_t pending(self) noexcept:
        """Return the innermost coding that gives out more without input, -1 if none does."""
        cdef Py_ssize_t at = -1 if self.error is not None else len(self.stages) - 1
        while at >= 0 and not (<_Stage>self.stages[at]).pending:
            at -= 1
        return at

    cdef bint has_more(self) noexcept:
        return self.pending() >= 0

    cdef bytes pull(self, bytes data, Py_ssize_t most):
        cdef Py_ssize_t at = 0 if data else self.pending(), last = len(self.stages) - 1
        cdef _Stage stage
        cdef bytes piece
        while at >= 0 and self.error is None:
            stage = self.stages[at]
            stage.started = True
            piece = step(self, stage, data, min(most, self.allowance + 1) if at == last else PIECE)
            data = b""
            if not piece:
                at = self.pending()
            elif at == last:
                return self.give(piece)
            else:
                stage.produced += len(piece)
                # Content that cannot be compressed grows a little in each coding
                if stage.produced > self.limit + self.limit // 64 + PIECE:
                    self.error = f"the body with {stage.coding} removed is longer than {self.limit} bytes"
                    self.too_long = True
                data = piece
                at += 1
        return b""

    cdef bytes give(self, bytes piece):
        """Return decoded bytes, as far as the limit allows."""
        if len(piece) > self.allowance:
            self.error = f"the decoded body is longer than {self.limit} bytes"
            self.overflow = self.too_long = True
            piece = piece[:self.allowance]
        self.allowance -= len(piece)
        self.produced += len(piece)
        return piece

    cpdef bytes feed(self, bytes data):
        """Decode the next bytes. Return b"" when they complete nothing, and for ever after an error."""
        cdef Py_ssize_t at
        cdef list out = []
        self.begin()
        for at in range(0, len(data), SLICE):
            if self.error is not None:
                break
            out.append(self.pull(data[at:at + SLICE], MAX_LIMIT))
            while self.has_more():
                out.append(self.pull(b"", MAX_LIMIT))
        return b"".join(out)

    cpdef bytes finish(self):
        """State that no byte follows. All was given out that there is, so there is no tail: only `error` may change."""
        cdef _Stage stage
        for stage in self.stages:
            if self.error is None and stage.started and not stage.complete:
                self.error = f"{stage.coding}: the stream is cut"
        return b""


cpdef Decoder decoder_for(bytes content_encoding, Py_ssize_t limit, bint per_feed=False, bint exact=False):
    """Return a decoder for a Content-Encoding value, None when it names no coding; a value that cannot be honoured sets `error`."""
    if content_encoding is None:
        return None
    cdef list codings = []
    for element in content_encoding.decode("latin-1").lower().split(","):
        # no other white space: to a server that is a part of a name that it does not know
        coding = element.strip(" \t")
        if coding and coding != "identity":
            codings.append(coding)
    if not codings:
        return None
    cdef Decoder decoder = Decoder()
    cdef _Stage stage
    decoder.limit = decoder.allowance = min(max(limit, 0), MAX_LIMIT)
    decoder.per_feed = per_feed
    if len(codings) > MAX_CODINGS:
        decoder.error = f"{len(codings)} content codings are stacked, and no more than {MAX_CODINGS} are decoded"
        return decoder
    for coding in reversed(codings):
        stage = stage_for(coding)
        if stage is None:
            decoder.error = f"the content coding {coding[:40]!r} is not known"
            return decoder
        stage.exact = exact
        decoder.stages.append(stage)
    return decoder


cpdef tuple decode_body(bytes content_encoding, bytes body, Py_ssize_t limit, bint cut=False, bint exact=False):
    """Decode a whole body: ``(decoded, None)``, or ``(body, reason)`` when it cannot be decoded within `limit` bytes."""
    if not body:
        # A response to HEAD, and 304, name the coding of what they do not carry
        return body, None
    cdef Decoder decoder = decoder_for(content_encoding, limit, False, exact)
    if decoder is None:
        return body, None
    return result_of(decoder, decoder.feed(body), body, cut)


cdef tuple result_of(Decoder decoder, bytes decoded, bytes body, bint cut):
    if not cut:
        decoder.finish()
    if decoder.error is not None:
        return body, decoder.error
    return decoded, None


cpdef bint refuses_identity(str accept_encoding) except -1:
    """Tell whether content without a coding is refused by an Accept-Encoding, which may be None (RFC 9110 section 12.5.3)."""
    cdef bint by_any = False
    for element in (accept_encoding or "").lower().split(","):
        coding, _, weight = element.partition(";")
        coding = coding.strip()
        name, _, value = weight.partition("=")
        is_refused = name.strip() == "q" and value.strip() != "" and not value.strip().strip("0.")
        if coding == "identity":
            return is_refused
        if coding == "*":
            by_any = is_refused
    return by_any
