"""Outcomes that wait on disk for etcd: one file each, whatever happens to the agent."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from etcsched.core.records import Report
from etcsched.files import replace_file
from etcsched.keyspace.codec import MalformedRecord, decode, encode

log = logging.getLogger(__name__)

_SUFFIX = ".json"
_NAME_MOST = 200
"""Of 255 that a file system takes: those of a job and of an agent may have 128 each."""


class Spool:
    """Writes and deletions are done one after another, in the order asked for, in a thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")
        self._thread.submit(int)  # Now: later this host may have no thread left.

    def read(self) -> tuple[Report, ...]:
        """All that is there, in the order in which the attempts ended. A file that isn't a report
        is put aside as ``.bad``, and said to be."""
        reports = []
        for path in self._directory.glob(f"*{_SUFFIX}"):
            try:
                reports.append(decode(Report, path.read_bytes()))
            except (OSError, MalformedRecord) as error:
                log.error("spooled outcome %s can't be read: %s", path, error)  # noqa: TRY400
                if isinstance(error, MalformedRecord):  # Else the next start may read it.
                    with contextlib.suppress(OSError):
                        path.replace(path.with_suffix(".bad"))
        return tuple(sorted(reports, key=lambda report: report.ended_at or report.claimed_at))

    def store(self, attempt_id: str, report: Report, done: Callable[[str, bool], None]) -> None:
        """``done`` is called in the spool's thread with the id, and whether it is on disk."""
        self._thread.submit(self._store, attempt_id, report, done)

    def forget(self, attempt_id: str) -> None:
        self._thread.submit(self._forget, attempt_id)

    def close(self) -> None:
        """Returns when everything asked for is done."""
        self._thread.shutdown()

    def _store(self, attempt_id: str, report: Report, done: Callable[[str, bool], None]) -> None:
        path = self._path(attempt_id)
        try:
            replace_file(path, encode(report))
        except OSError as error:
            log.error(  # noqa: TRY400
                "the outcome of %s can't be written to %s: %s; it is kept in memory and tried "
                "again", attempt_id, path.parent, error.strerror,
            )  # fmt: skip
            done(attempt_id, False)
        else:
            done(attempt_id, True)

    def _forget(self, attempt_id: str) -> None:
        try:
            self._path(attempt_id).unlink(missing_ok=True)
        except OSError as error:
            log.error("%s stays in the spool: %s", attempt_id, error.strerror)  # noqa: TRY400

    def _path(self, attempt_id: str) -> Path:
        """No id has a ``~`` (the names of jobs and runs don't)."""
        name = attempt_id.replace("/", "~")
        if len(name) > _NAME_MOST:
            name = hashlib.sha256(name.encode()).hexdigest()
        return self._directory / (name + _SUFFIX)
