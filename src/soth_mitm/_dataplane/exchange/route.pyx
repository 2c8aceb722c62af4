"""Where requests go."""

cimport cython

from soth_mitm._dataplane.http.counters cimport FlowCounts
from soth_mitm._dataplane.upstream.pool cimport OriginPool


@cython.final
cdef class Route:
    """Where requests go. `pool` is None for a refusal, which is answered `status` and `reason`."""

    def __cinit__(self, OriginPool pool, meta, str scheme not None, str authority not None, *, bint observed=True, int status=0,
                  bytes reason=b"", facts=None, on_facts=None, question=None, on_answer=None, FlowCounts counts=None):
        self.pool = pool
        self.meta = meta
        self.facts = facts
        self.on_facts = on_facts
        self.scheme = scheme
        self.authority = authority
        self.observed = observed
        self.status = status
        self.reason = reason
        self.question = question
        self.on_answer = on_answer
        self.counts = counts

    cdef int set_upstream_info(self, object facts) except -1:
        # the connections of a pool differ in little, and requests change between them
        cdef bint is_new = self.facts is None or self.facts != facts
        self.facts = facts
        if is_new and self.on_facts is not None and self.observed:
            self.meta = self.on_facts(self.meta, facts)
        return 0
