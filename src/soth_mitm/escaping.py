"""What a peer chose, made fit to be shown: on a terminal, in a log, in one line.

A client chooses names of programs, hosts, paths, header values; an upstream chooses what it answers and what its certificate says. A line
feed in one of them forges a line, an escape sequence acts on the terminal, a bidirectional control shows other text than there is.
"""

import logging
import traceback

_PLAIN = (int, float, bool, type(None))


def shown(text: str) -> str:
    """Return `text` with everything escaped, as `repr` does it, that does not print: controls, formats, separators, surrogates."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


class _Shown:
    """An argument of a log message, escaped however the message formats it."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return shown(str(self._value))

    def __repr__(self) -> str:
        return shown(repr(self._value))


class _Escape(logging.Filter):
    """Escapes what each record has been given: arguments, and what the exceptions of a traceback say."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, escaped."""
        if isinstance(record.args, tuple):
            record.args = tuple(each if isinstance(each, _PLAIN) else _Shown(each) for each in record.args)
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            # which the handlers' formatters use as it is
            record.exc_text = shown_traceback(record.exc_info[1])
        return True


_ESCAPE = _Escape()


def get_logger(name: str) -> logging.Logger:
    """Return the logger `name`, whose records are escaped. Every logger of this package comes from here; messages are constants."""
    logger = logging.getLogger(name)
    # which adds it once
    logger.addFilter(_ESCAPE)
    return logger


def shown_traceback(error: BaseException) -> str:
    """Return the traceback of `error`, in which what exceptions say is escaped, each in one line."""
    return "\n".join(_lines(traceback.TracebackException.from_exception(error))).rstrip("\n")


def _lines(formatted: traceback.TracebackException) -> list[str]:
    lines: list[str] = []
    for part in formatted.format():
        # frames, source and the titles between exceptions begin so; an exception begins with the name of its type
        if part.startswith((" ", "\n", "Traceback ")):
            lines += [shown(line) for line in part.rstrip("\n").split("\n")]
        else:
            lines.append(shown(part.rstrip("\n")))
    return lines
