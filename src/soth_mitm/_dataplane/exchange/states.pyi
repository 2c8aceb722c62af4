REQUEST_STATE_NAMES: tuple[str, ...]
REQUEST_INPUT_NAMES: tuple[str, ...]
RESPONSE_STATE_NAMES: tuple[str, ...]
RESPONSE_INPUT_NAMES: tuple[str, ...]
EXPIRY_NAMES: tuple[str, ...]
EXPIRY_RULES: tuple[tuple[int, int, int, str], ...]

def request_transitions() -> dict[str, dict[str, str]]: ...
def response_transitions() -> dict[str, dict[str, str]]: ...
