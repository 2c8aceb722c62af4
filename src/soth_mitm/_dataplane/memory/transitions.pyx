"""Tables of transitions: what a state machine does, looked up, listed and drawn."""


cdef int next_state(const char* table, int inputs, int state, int event) noexcept nogil:
    cdef char cell = table[state * inputs + event]
    return -1 if cell == c"x" else cell - c"0"


cdef dict transitions_of(const char* table, tuple states, tuple events):
    """Return {state: {input: state that follows}}."""
    cdef int state, event, following
    cdef dict found = {}
    for state in range(len(states)):
        found[states[state]] = {}
        for event in range(len(events)):
            following = next_state(table, <int>len(events), state, event)
            if following >= 0:
                found[states[state]][events[event]] = states[following]
    return found


def drawing(transitions not None):
    """Draw a table of transitions, a line for each state: what moves it, and where to.

    docs/architecture.md shows this.
    """
    width = max(map(len, transitions))
    lines = []
    for state, inputs in transitions.items():
        steps = {}
        for event, following in inputs.items():
            steps.setdefault(following, []).append(event)
        line = state.ljust(width)
        for following, events in steps.items():
            line += f"   ─{'|'.join(events)}─► {following}"
        lines.append(line.rstrip())
    return "\n".join(lines) + "\n"
