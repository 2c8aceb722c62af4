# The opening handshake of WebSocket (RFC 6455 section 4) and what permessage-deflate agrees on
# (RFC 7692 section 7.1). A field that `Connection` names is not relayed, so here it does not count.

from soth_mitm._dataplane.wire.head cimport Head
from soth_mitm._dataplane.wire.head_edits cimport HeadEdits


cdef enum HandshakeFault:
    HANDSHAKE_OK = 0
    # Of a request: it goes on without its upgrade
    REQUEST_METHOD             # not GET
    REQUEST_CONTENT
    REQUEST_UPGRADE            # no upgrade to `websocket`
    REQUEST_VERSION            # not 13, once
    REQUEST_KEY                # not 16 octets in base64, once
    # Of a 101: 502
    RESPONSE_UPGRADE           # to something else, or not only to `websocket`
    RESPONSE_ACCEPT            # does not answer the key, once
    # Of the extensions in a 101: 502 if messages are to be read
    EXTENSIONS_MALFORMED
    EXTENSION_NOT_OFFERED      # or of others, whose offers are taken out before messages are read
    EXTENSION_TWICE
    DEFLATE_PARAMETER          # unknown, repeated, or with a value that it may not have
    HANDSHAKE_FAULTS


# What both sides agreed on. Without a fault, compression is all that can be.
cdef struct Agreement:
    bint compresses            # permessage-deflate
    bint is_foreign            # something else, or not known what: RSV bits are not ours
    bint client_takeover       # the client's compressor keeps its window behind a message
    bint upstream_takeover
    int client_bits            # of the client's window, 8 to 15
    int upstream_bits


# Does the request ask for `websocket`, well or badly?
cdef bint asks_for_websocket(Head request) noexcept
# 0, or why the request cannot open a WebSocket
cdef int request_fault(Head request) except -1
# 0, or why this 101 does not open what `request` asks for. Extensions and subprotocol are not
# judged.
cdef int response_fault(Head request, Head response) except -1
# Fill in what the 101 agrees on; 0, or what of it is no answer to the offers in `request`
cdef int read_agreement(Head request, Head response, Agreement* agreement) except -1
# Take all offers but those of permessage-deflate out of the request, with the field if none is
# left. Those keep their octets. How many were taken out; a line that is malformed is one.
cdef int remove_other_offers(Head request, HeadEdits edits) except -1

# The value of the one field of that name in lower case; b"" if there is none, or there are more
cdef bytes only_value(Head head, const char* name, Py_ssize_t length)
# What answers a key (RFC 6455 section 4.2.2)
cdef bytes accept_of(bytes key)
# Does the 101 answer the key of `request`, once?
cdef bint accepts_key(Head request, Head response) except -1
# One line for people
cdef str handshake_fault_text(int fault)
