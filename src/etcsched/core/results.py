"""What a process hands on in the file ``$ETCSCHED_RESULTS``: one ``NAME=VALUE`` a line.

A name is a variable's (letters, digits, ``_``), so that it can be a parameter of the run that
follows; a name given again has several values. Everything behind the first ``=`` is the value, as
it stands. Blank lines are skipped. A line that is none of this, or doesn't fit any more, is left
out and said; the others count.
"""

from __future__ import annotations

import re
from typing import Final

from etcsched.core.text import shortened

MAX_RESULTS_BYTES: Final = 16 << 10
"""Of a run's results together, names and values."""

Results = dict[str, tuple[str, ...]]

_LINE: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,127})=(.*)", re.DOTALL)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_SHOWN_CHARACTERS: Final = 40


def parse_results(raw: bytes, *, is_cut: bool = False) -> tuple[Results, str]:
    """The results, and what is wrong with the file (empty: nothing), in one line. ``is_cut``: the
    file was longer than what is here."""
    if is_cut:
        raw = raw[: raw.rfind(b"\n") + 1]  # Of the last line only a part may be here.
    found: dict[str, list[str]] = {}
    problems: list[str] = []
    size = 0
    for number, line in enumerate(raw.split(b"\n"), start=1):
        text, problem = _text_of(line)
        match = _LINE.fullmatch(text)
        if not text.strip():
            continue
        if problem or match is None:
            shown = shortened(text, _SHOWN_CHARACTERS)
            problems.append(f"line {number}, {shown!r}, {problem or 'is no NAME=VALUE'}")
            continue
        name, value = match.groups()
        size += len(name) + len(value.encode())
        if size > MAX_RESULTS_BYTES:
            is_cut = True
            break
        found.setdefault(name, []).append(value)
    texts = problems[:1]
    if len(problems) > 1:
        texts.append(f"{len(problems) - 1} more lines are wrong")
    if is_cut:
        texts.append(f"only the first {MAX_RESULTS_BYTES} bytes are kept")
    return {name: tuple(values) for name, values in found.items()}, "; ".join(texts)


def as_params(results: Results) -> dict[str, str]:
    """As parameters of the run that follows: several values of a name stand in one, each in a line
    of its own."""
    return {name: "\n".join(values) for name, values in results.items()}


def _text_of(line: bytes) -> tuple[str, str]:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return line.decode(errors="replace"), "isn't UTF-8"
    text = text.removesuffix("\r")
    return text, "has a control character" if _CONTROL.search(text) else ""
