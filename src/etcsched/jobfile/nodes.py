"""YAML 1.2 as values that know their place: file, line and path.

A scalar counts as the text that was written, so ``no``, ``on`` and ``1:30`` are strings, and a
parameter's ``007`` stays that; only null is nothing. Aliases are followed as far as fields reach,
so a file can't blow up by referring to itself; and what is nested deeper than any field reaches is
refused where it gets so deep, since reading thousands of levels takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any, Final, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from etcsched.core.text import is_text

__all__ = ["FieldError", "Problems", "Value", "documents_of", "flaw_of", "reader", "unknown_text"]

T = TypeVar("T")

_TAG: Final = "tag:yaml.org,2002:"
_PLAIN_TAGS: Final = frozenset(
    _TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq")
)
_NULL: Final = _TAG + "null"
_MAX_DEPTH: Final = 50
"""Job files need a dozen."""


class FieldError(ValueError):
    """What a field says can't be; the text follows ``file:line: path:`` in a problem."""

    def __init__(self, value: Value, text: str) -> None:
        super().__init__(text)
        self.value = value
        self.text = text


class Problems:
    """All problems of all files, each once, in the order of files and lines."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int, str], None] = {}

    def add(self, value: Value, text: str) -> None:
        self.add_at(value.file_number, value.file, value.line, value.path, text)

    def add_at(self, file_number: int, file: str, line: int, path: str, text: str) -> None:
        where = f"{path}: " if path else ""
        self._found[file_number, line, f"{file}:{line}: {where}{text}"] = None

    def attempt(self, read: Callable[[Value], T], value: Value) -> T | None:
        """What ``read`` makes of the value; None, and a problem noted, where it can't."""
        try:
            return read(value)
        except FieldError as wrong:
            self.add(wrong.value, wrong.text)
        except ValueError as error:
            self.add(value, str(error))
        return None

    def __len__(self) -> int:
        return len(self._found)

    def lines(self) -> list[str]:
        return [text for _, _, text in sorted(self._found, key=lambda problem: problem[:2])]


class Value:
    """One node. ``line`` is that of its key, where it has one."""

    __slots__ = ("_node", "_problems", "file", "file_number", "line", "path")

    def __init__(
        self, problems: Problems, file_number: int, file: str, line: int, path: str, node: Any
    ) -> None:
        self._problems = problems
        self.file_number = file_number
        self.file = file
        self.line = line
        self.path = path
        self._node: Node = node

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    def text(self) -> str:
        """The scalar as written; ``FieldError`` for anything else, and for null."""
        self._refuse_tag()
        if not isinstance(self._node, ScalarNode):
            raise FieldError(self, f"takes a single value, not {self._kind()}")
        if self._node.tag == _NULL:
            raise FieldError(self, "has no value; write '' for an empty text, or leave it out")
        text: str = self._node.value
        if "\0" in text:
            raise FieldError(self, "must not contain the character NUL")
        if not is_text(text):
            raise FieldError(self, "has half of a surrogate pair, which is no character")
        return text

    def refuse(self, text: str) -> None:
        """Note a problem here and go on."""
        self._problems.add(self, text)

    def is_null(self) -> bool:
        return isinstance(self._node, ScalarNode) and self._node.tag == _NULL

    def is_map(self) -> bool:
        return isinstance(self._node, MappingNode)

    def is_list(self) -> bool:
        return isinstance(self._node, SequenceNode)

    def items(self, what: str) -> list[Value]:
        """``what`` is an example of what would be right, as in ``takes a list like [a, b]``."""
        self._refuse_tag()
        if not isinstance(self._node, SequenceNode):
            raise FieldError(self, f"takes a list like {what}, not {self._kind()}")
        return [
            self._inner(item.start_mark.line + 1, f"{self.path}[{number}]", item)
            for number, item in enumerate(self._node.value)
        ]

    def entries(self, what: str) -> dict[str, Value]:
        """A map's values by key. A key given twice is a problem; its first value counts."""
        self._refuse_tag()
        if not isinstance(self._node, MappingNode):
            raise FieldError(self, f"takes a map like {what}, not {self._kind()}")
        found: dict[str, Value] = {}
        for key, node in self._node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode) or key.tag == _NULL:
                self._inner(line, self.path, key).refuse("a key must be a name")
                continue
            if not is_text(key.value):
                flaw = "has half of a surrogate pair, which is no character"
                self._inner(line, self.path, key).refuse(f"the key {key.value!a} {flaw}")
                continue
            path = f"{self.path}.{key.value}" if self.path else key.value
            value = self._inner(line, path, node)
            if key.value in found:
                first = found[key.value].line
                value.refuse(f"is given twice; first in line {first}")
            else:
                found[key.value] = value
        return found

    def _inner(self, line: int, path: str, node: Any) -> Value:
        return Value(self._problems, self.file_number, self.file, line, path, node)

    def _refuse_tag(self) -> None:
        if self._node.tag not in _PLAIN_TAGS:
            raise FieldError(self, f"the tag {self._node.tag} has no meaning here; leave it out")

    def _kind(self) -> str:
        match self._node:
            case MappingNode():
                return "a map"
            case SequenceNode():
                return "a list"
        return "nothing" if self.is_null() else repr(self._node.value)


class _TooDeep(MarkedYAMLError):
    """Its mark is where it gets so deep."""


class _Shallow(Composer):
    _levels = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self._levels == _MAX_DEPTH:
            why = f"nested more than {_MAX_DEPTH} levels deep"
            raise _TooDeep(None, None, why, self.parser.peek_event().start_mark)
        self._levels += 1
        node = super().compose_node(parent, index)
        self._levels -= 1
        return node


def reader() -> YAML:
    """Of YAML 1.2 that isn't nested without end."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _Shallow
    return yaml


def documents_of(problems: Problems, file_number: int, file: str, text: str) -> Iterator[Value]:
    """The documents of a file up to its first flaw of form, which is a problem."""
    try:
        for node in reader().compose_all(text):
            yield Value(problems, file_number, file, node.start_mark.line + 1, "", node)
    except (YAMLError, RecursionError) as error:
        line, why = flaw_of(error)
        problems.add_at(file_number, file, line, "", why)


def flaw_of(error: YAMLError | RecursionError) -> tuple[int, str]:
    """The line, and what is wrong in one line."""
    match error:
        case _TooDeep():
            return error.problem_mark.line + 1, str(error.problem)
        case MarkedYAMLError():
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark is not None else 1
            why = " ".join(part for part in (error.context, error.problem) if part)
        case RecursionError():
            line, why = 1, "nested too deeply"
        case _:
            line, why = 1, "no text"
    return line, f"not YAML: {why}"


def unknown_text(kind: str, given: str, known: list[str]) -> str:
    """``unknown field 'timout'; did you mean timeout?``, or all that is known."""
    near = get_close_matches(given, known, n=3, cutoff=0.7)
    if near:
        return f"unknown {kind} {given!r}; did you mean {' or '.join(near)}?"
    return f"unknown {kind} {given!r}; known are {', '.join(known) or 'none'}"
