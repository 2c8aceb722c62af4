VIOLATION_NAMES: tuple[str, ...]
VIOLATION_TEXTS: tuple[str, ...]

def describe_violation(violation: int, from_client: bool) -> tuple[int, bytes]:
    """Return code and reason of the Close that goes to both sides.

    `violation` is an index of VIOLATION_NAMES; ValueError: it is none. The reason has 60 octets
    at most.
    """
