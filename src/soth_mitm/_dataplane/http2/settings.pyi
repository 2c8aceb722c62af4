from collections.abc import Mapping

FAULT_TEXTS: dict[int, str]

def apply_settings(*payloads: bytes, from_server: bool = False) -> dict[str, int]:
    """Apply SETTINGS payloads to the defaults, and return all values by name.

    Raises ValueError for a value that is an error of the connection, with the code's name and a text.
    """

def make_settings(values: Mapping[str, int], is_server: bool = False) -> bytes:
    """Return the payload that announces these values, named as in `apply_settings`; the others are the defaults."""
