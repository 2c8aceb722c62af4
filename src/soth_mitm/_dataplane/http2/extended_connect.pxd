# WebSocket on a stream of HTTP/2 (RFC 8441) as the upgrade of HTTP/1.1 (RFC 6455 section 4) that the exchange knows, and back.

from soth_mitm._dataplane.wire.head cimport Head


# GET with Upgrade and a key of ours, from an extended CONNECT with the :protocol `websocket`. None: it has content, or is no such request
cdef Head upgrade_of(Head connect)
# What of a 101 goes on behind `:status` 200: (name, value) pairs
cdef list fields_of_acceptance(Head response)
# The 101 that a successful response to the extended CONNECT means
cdef Head switch_of(Head request, Head response)
