"""The states of an HTTP/2 stream: one table, one guarded setter, one drawing.

A stream is closed in three ways, and each lets other frames follow: behind a RST_STREAM of ours anything
may come that crossed with it; behind the peer's nothing may; and where both have ended, only what says
nothing of content.
"""

from libc.stdint cimport uint32_t

STATE_NAMES = ("idle", "open", "local ended", "remote ended", "ended", "we reset", "peer reset")
EVENT_NAMES = (
    "receive HEADERS", "receive DATA", "receive END_STREAM", "receive RST_STREAM", "receive WINDOW_UPDATE",
    "receive PRIORITY", "send HEADERS", "send DATA", "send END_STREAM", "send RST_STREAM", "send WINDOW_UPDATE",
)
ANSWER_NAMES = {
    ANSWER_IGNORE: "ignored",
    ANSWER_CLOSED: "stream error STREAM_CLOSED",
    ANSWER_CLOSED_FATAL: "connection error STREAM_CLOSED",
    ANSWER_PROTOCOL: "connection error PROTOCOL_ERROR",
    ANSWER_BUG: "never done",
}

# A row for each state, a column for each event, in the order of the enums. A digit is the state that the event
# leads to; `-` ANSWER_IGNORE, `c` ANSWER_CLOSED, `C` ANSWER_CLOSED_FATAL, `p` ANSWER_PROTOCOL, `x` ANSWER_BUG.
# Who may open a stream that is idle is not asked here.
cdef const char* TABLE = (
    # HEADERS, DATA, END_STREAM, RST_STREAM, WINDOW_UPDATE, PRIORITY received; all but the last sent
    b"1pppp0" b"1xxxx"     # idle
    b"113611" b"11251"     # open
    b"224622" b"xxx52"     # half-closed (local)
    b"ccc633" b"3345x"     # half-closed (remote)
    b"CCC---" b"xxxxx"     # both have ended
    b"------" b"xxxxx"     # we have reset it: the peer may not know yet
    b"ccc---" b"xxxxx"     # the peer has reset it
)


cdef int next_state(int state, int event) noexcept nogil:
    cdef char cell = TABLE[state * STREAM_EVENTS + event]
    if cell == c"-":
        return ANSWER_IGNORE
    if cell == c"c":
        return ANSWER_CLOSED
    if cell == c"C":
        return ANSWER_CLOSED_FATAL
    if cell == c"p":
        return ANSWER_PROTOCOL
    return ANSWER_BUG if cell == c"x" else cell - c"0"


cdef int change_state(int* state, int event) noexcept nogil:
    cdef int answer = next_state(state[0], event)
    if answer < 0:
        return answer
    state[0] = answer
    return 0


cdef void remember_closed(ClosedStreams* closed, uint32_t stream, int state) noexcept nogil:
    cdef ClosedStream* place = &closed.ring[closed.next]
    if closed.count < CLOSED_MEMORY:
        closed.count += 1
    else:
        closed.forgotten = max(closed.forgotten, place.stream)
    place.stream = stream
    place.state = state
    closed.next = (closed.next + 1) % CLOSED_MEMORY


cdef int recall_closed(const ClosedStreams* closed, uint32_t stream) noexcept nogil:
    cdef int i
    for i in range(closed.count):
        if closed.ring[i].stream == stream:
            return closed.ring[i].state
    return STREAM_IDLE


def state_after(int state, int event):
    """Return the state that an event leads to, or, below 0, what it does instead; numbers as in STATE_NAMES and ANSWER_NAMES."""
    if not 0 <= state < STREAM_STATES or not 0 <= event < STREAM_EVENTS:
        raise ValueError("no such state or event")
    return next_state(state, event)


def change(int state, int event):
    """Change a state as a session does: the new state, and 0 or what happens instead."""
    cdef int answer
    state_after(state, event)
    answer = change_state(&state, event)
    return state, answer


def remembered(streams not None, uint32_t stream):
    """Close `streams`, pairs of number and state, in order: how `stream` is remembered, and the highest that is forgotten."""
    cdef ClosedStreams closed
    cdef uint32_t number
    cdef int state
    closed.count = closed.next = 0
    closed.forgotten = 0
    for number, state in streams:
        remember_closed(&closed, number, state)
    return recall_closed(&closed, stream), closed.forgotten


def draw_states():
    """Draw the table: a line for each state and each event that leads on, and one for what else happens in that state."""
    cdef int state, event, answer
    lines = []
    for state in range(STREAM_STATES):
        stays = [EVENT_NAMES[event] for event in range(STREAM_EVENTS) if next_state(state, event) == state]
        if stays:
            lines.append(f"{STATE_NAMES[state]}: {', '.join(stays)}")
        for event in range(STREAM_EVENTS):
            if next_state(state, event) >= 0 and next_state(state, event) != state:
                lines.append(f"{STATE_NAMES[state]} -- {EVENT_NAMES[event]} --> {STATE_NAMES[next_state(state, event)]}")
        for answer in (ANSWER_IGNORE, ANSWER_CLOSED, ANSWER_CLOSED_FATAL, ANSWER_PROTOCOL):
            events = [EVENT_NAMES[event] for event in range(STREAM_EVENTS) if next_state(state, event) == answer]
            if events:
                lines.append(f"{STATE_NAMES[state]}: {', '.join(events)}: {ANSWER_NAMES[answer]}")
    return "\n".join(lines) + "\n"
