# Connection authentication: NTLM and Negotiate know a client by the connection that it speaks over.

from soth_mitm._dataplane.wire.head cimport Head


# Does this exchange begin or continue an authentication of the connection that it went over?
# `response` None: there is none yet
cdef bint authenticates_connection(Head request, Head response) noexcept
