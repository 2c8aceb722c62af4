"""What a configuration key is: its text, range and meaning stand beside the field, once.

A tree is a `msgspec.Struct`. Its fields are sections (Structs again, one level) or keys (`Annotated[type, Key(...)]`). From that
come the checks, the messages, the environment names, the commented TOML and the page of the documentation.
"""

import difflib
import enum
import functools
import operator
import os
import reprlib
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from soth_mitm.errors import InvalidConfigError

ENVIRONMENT_PREFIX = "SOTH_MITM__"


@dataclass(frozen=True, slots=True)
class Key:
    """What a user must know about one key."""

    doc: str
    minimum: int | None = None
    maximum: int | None = None
    check: Callable[[str], object] | None = None
    """Called with a string, with each string of a list, with each name of a table; `ValueError` refuses it."""
    unset: str = ""
    """What happens where the key has no value."""
    example: Any = None
    """A value other than the default, shown where the default is none or empty."""
    frozen: bool = False
    """True where a reload cannot change it, because it needs a new socket, process or CA."""


class Kind(enum.Enum):
    """The types that a key may have; the value is what a person is told to write."""

    FLAG = "true or false"
    NUMBER = "a whole number"
    TEXT = "a string"
    PATH = "a path"
    CHOICE = "a choice"
    TEXTS = "a list of strings"
    PATHS = "a table of paths by destination"
    ENTRIES = "a list of tables"


_KINDS: dict[Any, Kind] = {
    bool: Kind.FLAG,
    int: Kind.NUMBER,
    str: Kind.TEXT,
    Path | str: Kind.PATH,
    list[str]: Kind.TEXTS,
    Sequence[str]: Kind.TEXTS,
    dict[str, Path | str]: Kind.PATHS,
}
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True, slots=True)
class Spec:
    """One key of a tree, with everything that its field says."""

    section: str
    field: str
    kind: Kind
    choices: tuple[str, ...]
    optional: bool
    default: Any
    key: Key
    entry: type[msgspec.Struct] | None = None
    """What each table of a list of tables makes."""

    @property
    def name(self) -> str:
        """The dotted key."""
        return f"{self.section}.{self.field}" if self.section else self.field

    @property
    def environment_name(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.replace(".", "__").upper()

    @property
    def expected(self) -> str:
        """What may be written, for messages and documentation."""
        if self.kind is Kind.CHOICE:
            return "one of " + ", ".join(f'"{choice}"' for choice in self.choices)
        low, high = self.key.minimum, self.key.maximum
        if low is not None and high is not None:
            return f"{self.kind.value} from {low} to {high}"
        return self.kind.value if low is None else f"{self.kind.value} of at least {low}"

    def read(self, tree: msgspec.Struct) -> Any:
        return getattr(getattr(tree, self.section) if self.section else tree, self.field)

    def write(self, tree: msgspec.Struct, value: Any) -> None:
        setattr(getattr(tree, self.section) if self.section else tree, self.field, value)

    def error(self, message: str) -> InvalidConfigError:
        return InvalidConfigError(self.name, message)

    def verify(self, value: Any) -> None:
        """Raise `InvalidConfigError` unless `value` has this key's type, lies in its range and passes its check."""
        if value is None and self.optional:
            return
        if self.kind is Kind.ENTRIES and not self._has_type(value):
            # there may be values in it that are to be shown nowhere
            raise self.error(f"expected {self.expected}, got {type(value).__name__}")
        if not self._has_type(value):
            raise self.error(f"expected {self.expected}, got {reprlib.repr(value)}")
        if self.kind is Kind.NUMBER:
            low, high = self.key.minimum, self.key.maximum
            if (low is not None and value < low) or (high is not None and value > high):
                raise self.error(f"expected {self.expected}, got {value}")
        elif self.kind is Kind.PATH and os.fspath(value) == "":
            raise self.error("is an empty path" + ("; leave the key out for none" if self.optional else ""))
        elif self.kind is Kind.PATHS and (empty := [name for name, path in value.items() if os.fspath(path) == ""]):
            raise self.error(f"the path of `{empty[0]}` is empty")
        if self.key.check is not None:
            for text in [value] if isinstance(value, str | Path) else value:
                try:
                    self.key.check(os.fspath(text))
                except ValueError as exc:
                    raise self.error(f"`{text}` {exc}") from None

    def from_document(self, value: Any) -> Any:
        """Return what a TOML document or mapping says for this key as the tree holds it: verified, its own copy, `~` expanded in paths."""
        if self.kind is Kind.ENTRIES:
            if not isinstance(value, list) or not all(isinstance(each, Mapping | (self.entry or Mapping)) for each in value):
                raise self.error(f"expected {self.expected}, got {type(value).__name__}; write each below `[[{self.name}]]`")
            value = [self._entry(index, table) for index, table in enumerate(value)]
        self.verify(value)
        try:
            if self.kind is Kind.PATH and value is not None:
                return Path(value).expanduser()
            if self.kind is Kind.PATHS:
                return {name: Path(path).expanduser() for name, path in value.items()}
        except RuntimeError:
            raise self.error(f"names a home directory that this user does not have: {reprlib.repr(value)}; write the whole path") from None
        return list(value) if self.kind is Kind.TEXTS else value

    def from_text(self, text: str) -> Any:
        """Return what an environment variable says: empty is none, lists are separated by commas, tables are `name=path,name=path`."""
        text = text.strip()
        if self.kind is Kind.ENTRIES:
            raise self.error("cannot be set in the environment; write a table in the file for each")
        if not text and self.optional:
            return None
        if self.kind is Kind.FLAG:
            if text.lower() not in _TRUE + _FALSE:
                raise self.error(f"expected {self.expected}, got {text!r}")
            return text.lower() in _TRUE
        if self.kind is Kind.NUMBER:
            try:
                return self.from_document(int(text))
            except ValueError as exc:
                raise exc if isinstance(exc, InvalidConfigError) else self.error(f"expected {self.expected}, got {text!r}") from None
        if self.kind in (Kind.TEXTS, Kind.PATHS):
            parts = [part.strip() for part in text.split(",")] if text else []
            if self.kind is Kind.TEXTS:
                return self.from_document(parts)
            pairs = [part.partition("=") for part in parts]
            if unpaired := [name for name, equals, _ in pairs if not equals]:
                raise self.error(f"`{unpaired[0]}` has no path; write `destination=path`, several separated by commas")
            return self.from_document({name.strip(): path.strip() for name, _, path in pairs})
        return self.from_document(text)

    def plain(self, value: Any) -> Any:
        """Return `value` in the types of TOML, as a copy: paths are strings."""
        if isinstance(value, Path):
            return os.fspath(value)
        if isinstance(value, dict):
            return {name: os.fspath(path) for name, path in value.items()}
        if self.kind is Kind.ENTRIES:
            return [_plain_entry(entry) for entry in value]
        return list(value) if isinstance(value, list) else value

    def differs(self, value: Any, other: Any) -> bool:
        """Tell whether two values of this key are not the same; how a path is written makes no difference."""
        if self.kind is Kind.ENTRIES:
            # what is plain of them says less
            return bool(value != other)
        return bool(self.plain(value) != self.plain(other))

    def _entry(self, index: int, table: Any) -> Any:
        """Return what one table of the list makes; an error has the number of the table in its key."""
        name = f"{self.name}[{index}]"
        assert self.entry is not None
        if isinstance(table, self.entry):
            return table
        known = entry_specs(self.entry, self.name)
        for field in table:
            if field not in known:
                nearest = difflib.get_close_matches(str(field), known, n=1)
                hint = f"did you mean `{nearest[0]}`?" if nearest else f"its keys are {', '.join(known)}"
                raise InvalidConfigError(f"{name}.{field}", f"unknown key; {hint}")
        for field, spec in known.items():
            if field not in table and spec.default is msgspec.NODEFAULT:
                raise InvalidConfigError(f"{name}.{field}", "is missing")
        try:
            return self.entry(**table)
        except InvalidConfigError as exc:
            raise InvalidConfigError(f"{name}.{exc.key.rpartition('.')[2]}", exc.message) from None

    def _has_type(self, value: Any) -> bool:
        match self.kind:
            case Kind.FLAG:
                return isinstance(value, bool)
            case Kind.NUMBER:
                return isinstance(value, int) and not isinstance(value, bool)
            case Kind.TEXT:
                return isinstance(value, str)
            case Kind.PATH:
                return isinstance(value, str | Path)
            case Kind.CHOICE:
                return isinstance(value, str) and value in self.choices
            case Kind.TEXTS:
                return isinstance(value, list) and all(isinstance(text, str) for text in value)
            case Kind.ENTRIES:
                return isinstance(value, list) and all(isinstance(entry, self.entry or ()) for entry in value)
            case Kind.PATHS:
                return isinstance(value, Mapping) and all(isinstance(k, str) and isinstance(v, str | Path) for k, v in value.items())


@functools.cache
def sections(tree: type[msgspec.Struct]) -> Mapping[str, type[msgspec.Struct]]:
    """Return the sections of a tree by name, in the order of its fields."""
    fields = msgspec.structs.fields(tree)
    return {field.name: field.type for field in fields if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)}


@functools.cache
def specs(tree: type[msgspec.Struct]) -> Mapping[str, Spec]:
    """Return every key of a tree by its dotted name: those without a section first, then section by section."""
    found = [_spec("", field) for field in msgspec.structs.fields(tree) if field.name not in sections(tree)]
    for name, section in sections(tree).items():
        found += [_spec(name, field) for field in msgspec.structs.fields(section)]
    return {spec.name: spec for spec in found}


@functools.cache
def entry_specs(entry: type[msgspec.Struct], name: str) -> Mapping[str, Spec]:
    """Return the keys of each table of the list `name`, by their own names; `default` is `msgspec.NODEFAULT` where one is needed."""
    return {field.name: _spec(name, field) for field in msgspec.structs.fields(entry)}


def _plain_entry(entry: msgspec.Struct) -> dict[str, Any]:
    found = {}
    for field, value in msgspec.structs.asdict(entry).items():
        shown = getattr(entry, f"shown_{field}", value)
        found[field] = list(shown) if isinstance(shown, tuple) else shown
    return found


def _spec(section: str, field: msgspec.structs.FieldInfo) -> Spec:
    if get_origin(field.type) is not Annotated:
        raise TypeError(f"{section}.{field.name} has no Key beside it")
    annotation, key = get_args(field.type)
    optional = isinstance(annotation, types.UnionType) and types.NoneType in get_args(annotation)
    if optional:
        annotation = functools.reduce(operator.or_, (part for part in get_args(annotation) if part is not types.NoneType))
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    entry = None
    if choices:
        kind = Kind.CHOICE
    elif get_origin(annotation) is list and annotation not in _KINDS:
        kind, entry = Kind.ENTRIES, get_args(annotation)[0]
    elif annotation not in _KINDS and str in get_args(annotation):
        # a string, or in code what it would name
        kind = Kind.TEXT
    else:
        kind = _KINDS[annotation]
    return Spec(section, field.name, kind, choices, optional, default, key, entry)
