"""The highest revision that a node has seen of its cluster, kept on its disk.

A cluster's revision never falls. One that shows a lower revision was restored from a backup, or is
another cluster: what a node still knows or runs may contradict what that one says, so a person
has to decide.
"""

from __future__ import annotations

import logging
from pathlib import Path

from etcsched.core.errors import ClusterRestored, UsageError
from etcsched.files import replace_file

log = logging.getLogger(__name__)


class HighWater:
    """``path`` None: remembered for as long as the process lives only."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.revision = self._written = self._read()

    def _read(self) -> int:
        if self._path is None:
            return 0
        try:
            return int(self._path.read_text())
        except (OSError, ValueError):
            return 0

    def prepare(self) -> None:
        """``UsageError`` where nothing could be kept: a restored etcd would go unnoticed. A full
        disk is another matter, and passes."""
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.with_suffix(".new").touch()
        except OSError as error:
            raise UsageError(
                f"state directory {self._path.parent} can't be written: {error.strerror}; name "
                "another with --state-dir"
            ) from error

    def check(
        self, revision: int, *, who: str, accept_restored: bool, seen: int | None = None
    ) -> None:
        """Compare with what a linearizable read showed; raises ``ClusterRestored`` where it is
        lower, unless that was accepted: then it counts from there.

        ``seen``: the revision seen before the read was sent, where a watch may have shown a later
        one since."""
        seen = self.revision if seen is None else seen
        if revision < seen:
            if not accept_restored:
                raise ClusterRestored(
                    f"etcd is at revision {revision}, but {who} has seen {seen}: it was "
                    "restored from a backup, or is another cluster; see that nothing runs twice, "
                    "then start with --accept-restored-cluster"
                )
            log.warning("etcd was restored: revision %d, not %d", revision, seen)
            self.revision = revision

    def saw(self, revision: int) -> None:
        self.revision = max(self.revision, revision)

    def write(self) -> None:
        """Blocks until it is on disk; does nothing where nothing is new. ``OSError`` is the
        caller's. An empty file after a power cut would have seen nothing, just before etcd is
        restored from its backup."""
        if self._path is None or self.revision == self._written:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        revision = self.revision
        replace_file(self._path, f"{revision}\n".encode())
        self._written = revision
