"""What jobs' processes write of themselves into a file, one append a word:

what job run token seconds-of-Unix-time [attempt [agent]]
"""

from __future__ import annotations

from pathlib import Path

from etcsched.audit.history import Word, WordKind

__all__ = ["Ledger", "read_word"]

_KINDS = {
    "start": WordKind.START,
    "beat": WordKind.BEAT,
    "child": WordKind.BEAT,
    "end": WordKind.END,
}


def read_word(line: str) -> Word | None:
    """None: a line that is torn, or says something else."""
    what, *rest = line.split()[:7] or [""]
    kind = _KINDS.get(what)
    try:
        job, run, token, at_s, *more = rest
        attempt, agent = (*more, *("0", "")[len(more) :])
        return kind and Word(
            kind=kind,
            job=job,
            run=run,
            token=int(token),
            at_ms=int(float(at_s) * 1000),
            attempt=int(attempt),
            agent=agent,
        )
    except ValueError:
        return None


class Ledger:
    """Reads such a file as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0

    def news(self) -> list[Word]:
        """What was written since the last call, whole lines only."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read_bytes)
                raw = file.read()
        except FileNotFoundError:
            return []
        whole = raw[: raw.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        words = (read_word(line) for line in whole.decode(errors="replace").splitlines())
        return [word for word in words if word is not None]
