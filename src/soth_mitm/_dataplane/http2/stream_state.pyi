from collections.abc import Iterable

STATE_NAMES: tuple[str, ...]
EVENT_NAMES: tuple[str, ...]
ANSWER_NAMES: dict[int, str]

def state_after(state: int, event: int) -> int:
    """Return the state that an event leads to, or, below 0, what it does instead; numbers as in STATE_NAMES and ANSWER_NAMES."""

def change(state: int, event: int) -> tuple[int, int]:
    """Change a state as a session does: the new state, and 0 or what happens instead."""

def remembered(streams: Iterable[tuple[int, int]], stream: int) -> tuple[int, int]:
    """Close `streams`, pairs of number and state, in order: how `stream` is remembered, and the highest that is forgotten."""

def draw_states() -> str:
    """Draw the table: a line for each state and each event that leads on, and one for what else happens in that state."""
