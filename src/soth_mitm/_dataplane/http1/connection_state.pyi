SERVER_STATE_NAMES: tuple[str, ...]
SERVER_INPUT_NAMES: tuple[str, ...]
CLIENT_STATE_NAMES: tuple[str, ...]
CLIENT_INPUT_NAMES: tuple[str, ...]

def server_transitions() -> dict[str, dict[str, str]]: ...
def client_transitions() -> dict[str, dict[str, str]]: ...
