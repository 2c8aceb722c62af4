# Heads as they leave. What RFC 9110 section 7.6 orders to remove is removed; every other byte leaves as it came.

from soth_mitm._dataplane.head cimport Head


# The request head for the upstream: absolute-form becomes origin-form (and the Host field agrees with it already: parsing saw to that),
# fields with `hop` set are left out; `keep_upgrade` keeps Connection and Upgrade for an upgrade that is relayed. Returns `head.raw`
# itself when nothing changes. The version stays as the client sent it: an upstream must not answer HTTP/1.0 with chunked.
cdef bytes request_head_bytes(Head head, bint keep_upgrade)

# The response head for the client: version HTTP/1.1, hop fields left out, `Connection: close` added when `close`,
# `Connection: keep-alive` when `keep_alive_10` (the client speaks HTTP/1.0 and the connection goes on). Interim heads likewise.
cdef bytes response_head_bytes(Head head, bint close, bint keep_alive_10, bint keep_upgrade)

# A whole answer of ours: status line, `Content-Type: text/plain; charset=utf-8` unless given, exact Content-Length, optional extra headers
# ((bytes, bytes) pairs, already validated), `Connection: close` when `close`; the body is left out for HEAD (`head_only`) but counted.
cdef bytes own_response_bytes(int status, bytes body, object headers, bint close, bint head_only)
