def drawing(transitions: dict[str, dict[str, str]]) -> str:
    """Draw a table of transitions, a line for each state: what moves it, and where to.

    docs/architecture.md shows this.
    """
