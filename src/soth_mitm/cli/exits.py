"""How a command ends: an exit code for each kind of failure, and one line that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from soth_mitm.errors import BindError, CaError, InvalidConfigError

BLOCKED = 10
CONFIG_WRONG, START_FAILED, RUN_FAILED = 20, 22, 23


class Failure(click.ClickException):
    """Ends the command with `code` and a line on standard error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc, unused-ignore]  # click's newest stubs say ClassVar


@contextmanager
def explained() -> Iterator[None]:
    """Turn what the package raises on purpose, and what the system refuses, into a `Failure`."""
    try:
        yield
    except InvalidConfigError as error:
        raise Failure(CONFIG_WRONG, str(error)) from error
    except (BindError, CaError) as error:
        raise Failure(START_FAILED, str(error)) from error
    except OSError as error:
        raise Failure(RUN_FAILED, str(error)) from error
