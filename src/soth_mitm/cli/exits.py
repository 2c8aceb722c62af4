"""How a command ends: an exit code for each kind of failure, and one line that says what to do."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from soth_mitm.errors import BindError, CaError, EventSinkError, InvalidConfigError, StoreError

BLOCKED = 10
CONFIG_WRONG, SINK_FAILED, START_FAILED, RUN_FAILED = 20, 21, 22, 23


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
    except EventSinkError as error:
        raise Failure(SINK_FAILED, str(error)) from error
    except (BindError, CaError, StoreError) as error:
        raise Failure(START_FAILED, str(error)) from error
    except OSError as error:
        raise Failure(RUN_FAILED, str(error)) from error


class Commands(click.Group):
    """A group whose commands end with one of the documented codes, also where they are interrupted or cannot print."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that the arguments name."""
        try:
            with explained():
                return super().invoke(ctx)
        except (click.Abort, KeyboardInterrupt) as error:
            raise Failure(RUN_FAILED, "interrupted, or a prompt got no answer") from error
        except Failure:
            _drop_what_cannot_be_printed()
            raise


def _drop_what_cannot_be_printed() -> None:
    """Leave nothing to the end of the interpreter that it could only fail to write, which would change the exit code."""
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
