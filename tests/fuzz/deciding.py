"""A handler that decides by what it is shown, so that it decides alike however that came."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from typing import Any
from uuid import UUID

from fuzz.fake_loop import FakeLoop
from fuzz.scripted_handler import DECISIONS, Question, ScriptedHandler

# Which of them are decided on, besides what all hooks may do: those that need no operation to go on, and cut nothing
LATER = {"replace slowly", "replace and fail", "respond slowly", "abort"}
ALIKE = ("return", "yield", "plain", "block", "raise")


class DecidingByContent(ScriptedHandler):
    """Decides by path, status and payload; `seed` chooses which way."""

    def __init__(self, seed: int, loop: FakeLoop, names: tuple[str, ...]) -> None:
        super().__init__(loop, names)
        self._seed = seed

    @classmethod
    def kind(cls, deciding: int) -> Callable[[FakeLoop, tuple[str, ...]], ScriptedHandler]:
        """Return the handler for the byte of the settings that says which hooks decide, and in its upper half how."""
        return functools.partial(cls, deciding >> 4) if deciding else ScriptedHandler

    def number_of(self, question: Question) -> int:
        return len(path_of(question.shown))

    def _outcome(self, hook: str, connection_id: UUID, answer: object, question: Question) -> object:
        if question.hook:
            shown = question.shown
            seen = getattr(shown, "payload", b"") or b"%d %b" % (getattr(shown, "status", 0), path_of(shown).encode("latin-1"))
            kinds = ALIKE + tuple(kind for kind in DECISIONS[hook] if kind not in LATER)
            self.behaviour[hook] = kinds[(self._seed + zlib.crc32(seen)) % len(kinds)]
        return super()._outcome(hook, connection_id, answer, question)


def path_of(shown: Any) -> str:
    """Return what was asked for."""
    path: str = getattr(shown, "request", shown).path
    return path
