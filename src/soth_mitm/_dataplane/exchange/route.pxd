# Where requests go.

from soth_mitm._dataplane.http.counters cimport FlowCounts
from soth_mitm._dataplane.upstream.pool cimport OriginPool


# Where the requests of a connection (or, on the proxy port, of one authority) go, and whether the handler sees them
cdef class Route:
    cdef readonly OriginPool pool      # None: refused
    cdef readonly object meta          # ConnectionMeta, with the facts of the upstream connection used last
    cdef readonly object facts         # of that connection: see PooledConnection.facts
    cdef readonly object on_facts      # on_facts(meta, facts) -> meta, or None: the facts are of no interest
    cdef readonly str scheme
    cdef readonly str authority
    cdef readonly bint observed
    cdef readonly int status           # of the refusal
    cdef readonly bytes reason
    cdef readonly FlowCounts counts      # where its flows are counted; None: among those to unlisted destinations
    cdef readonly object question      # ConnectTarget that on_connect is to be asked about first; None: nothing is to be asked
    cdef readonly object on_answer     # on_answer(result, error of the hook) -> Route, or None: cut the connection

    # Requests now go over a connection of which that is known
    cdef int set_upstream_info(self, object facts) except -1
