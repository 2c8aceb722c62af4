# Tables of transitions: a row for each state, a column for each input. A digit is the state that
# follows; `x`: that state does not have that input.

# The state that follows, or -1
cdef int next_state(const char* table, int inputs, int state, int event) noexcept nogil
# {state: {input: state that follows}}
cdef dict transitions_of(const char* table, tuple states, tuple events)
