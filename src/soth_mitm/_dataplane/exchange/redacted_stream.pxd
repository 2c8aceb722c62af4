# An upstream's stream whose response has no value of a credential in it: what it gives has the placeholders instead.

from libc.stdint cimport int64_t

from soth_mitm._dataplane.exchange.budget_share cimport BudgetShare
from soth_mitm._dataplane.http.stream cimport Stream, StreamCallbacks
from soth_mitm._dataplane.wire.decode cimport Decoder
from soth_mitm._dataplane.wire.grpc cimport GrpcParts
from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.wire.redactor cimport Redactor, SearchedStrings


# What the stream inside tells, told in the name of the one around it
cdef class RedactedCallbacks(StreamCallbacks):
    cdef StreamCallbacks exchange
    cdef RedactedStream stream


cdef class RedactedStream(Stream):
    cdef Stream inner
    cdef Redactor redactor
    cdef Decoder decoder           # None: the content is not coded
    cdef SearchedStrings searched
    cdef bytes ready               # content that may leave
    cdef Py_ssize_t given          # of it, by pieces
    cdef list borrowed                 # what the pieces since the last take_content() lie in
    cdef bytes trailers            # that are still to be given
    cdef bint is_flushed           # the end of the content was given out by decoder and redactor
    cdef bint has_failed           # it cannot be decoded
    cdef str failure               # and why
    cdef int64_t total
    cdef GrpcParts messages        # None: it is no gRPC
    cdef BudgetShare share
    cdef Py_ssize_t counted        # bytes that it holds, as the budget counts them
    cdef bint is_left              # the exchange has done with it

    cdef int take_in(self, bytes data) except -1
    cdef int fail(self, str error) except -1
    cdef bytes redact_messages(self, bytes data)
    cdef bytes redacted_message(self, bytes message)   # of one that is compressed. None: it cannot be looked into
    cdef int count(self) except -1
    cdef int leave(self) except -1
    cdef int flush_end(self) except -1
    cdef Py_ssize_t left(self) noexcept


# `head` is the response's, as it came; `messages`: it is gRPC. None: it has a coding that cannot be removed
cdef RedactedStream new_redacted_stream(
    Stream inner, StreamCallbacks exchange, BudgetShare share, Head head, SearchedStrings strings, GrpcParts messages)
# The head without values. `drops_body`: and without what describes a body that may change (length, coding, validators, digests)
cdef Head redacted_head(Head head, SearchedStrings strings, bint drops_body)
