"""What a word is, when text is searched by words: letters and digits in a row, without regard to case and accents."""

import re
import unicodedata
from collections.abc import Iterator

LONGEST_WORD = 40
"""Characters of a word that count."""
MOST_WORDS = 20_000
"""Different words of one text that are found."""

_WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """Return the words of a text in order, spelled in ASCII."""
    return list(_words(text))


def word_set(text: str) -> set[str]:
    """Return the different words of a text, the first 20,000 of them."""
    if text.isascii() and len(text) < 1 << 20:
        found = {word[:LONGEST_WORD] for word in _WORD.findall(text.lower())}
        if len(found) <= MOST_WORDS:
            return found
    words: set[str] = set()
    for word in _words(text):
        words.add(word)
        if len(words) == MOST_WORDS:
            break
    return words


def _words(text: str) -> Iterator[str]:
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text.casefold())
        text = "".join(each for each in decomposed if not unicodedata.combining(each)).casefold()
    for match in _WORD.finditer(text.lower()):
        word = match[0][:LONGEST_WORD]
        # what an index of words makes of other letters depends on its version
        yield word if word.isascii() else f"u{word.encode('utf-8', 'replace').hex()}"
