"""A tool that answers from a record: what `soth_mitm.tls.trust` would run, with what the real one said."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from soth_mitm.tls.trust.command import Output

Answer = Output | Callable[[tuple[str, ...], str], Output]


class RecordedTool:
    """Answers a command with the first record whose words are in it, in this order; `calls` are the commands that came."""

    def __init__(self, records: Sequence[tuple[Sequence[str], Answer]] = ()) -> None:
        self._records = list(records)
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, argv: Sequence[str], stdin: str = "") -> Output:
        self.calls.append(tuple(argv))
        for words, answer in self._records:
            remaining = iter(argv)
            if all(word in remaining for word in words):
                return answer(tuple(argv), stdin) if callable(answer) else answer
        raise AssertionError(f"nothing is recorded for {list(argv)}")

    def verbs(self, position: int = 1) -> list[str]:
        """Return the word at `position` of each command."""
        return [call[position] for call in self.calls]
