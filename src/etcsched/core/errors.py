"""The one tree of errors. Each carries one line that says what happened and what to do.

``exit_code`` is what the command line ends with (SEMANTICS: 1 failed, 2 usage, 3 cluster out of
reach, 4 not found, 5 refused).
"""


class EtcschedError(Exception):
    """Any error that a person is meant to read; ``str(error)`` is the whole line."""

    exit_code = 1


class UsageError(EtcschedError):
    """What was asked for makes no sense, whatever the cluster's state."""

    exit_code = 2


class ClusterUnreachable(EtcschedError):
    """No endpoint answered in time. Only for calls that certainly changed nothing (reads)."""

    exit_code = 3


class OutcomeUnknown(ClusterUnreachable):
    """A write was sent and its answer didn't come: it may have been committed, or may yet be.

    Never retry anything but the identical transaction.
    """


class ClusterRefused(EtcschedError):
    """etcd answered, and said no: wrong password, missing permission, bad certificate."""

    exit_code = 5


class PermissionDenied(ClusterRefused):
    """This user may not do that."""


class UnsupportedEtcd(ClusterRefused):
    """An etcd server of a version that this program won't trust with its data."""


class InvalidTransaction(EtcschedError):
    """etcd refused the form of a transaction (duplicate key, too many operations, too large).

    Nothing of it was applied.
    """


class LeaseGone(EtcschedError):
    """The lease of a call doesn't exist: it expired or was revoked."""


class NoSpace(EtcschedError):
    """etcd's database is over its quota (alarm NOSPACE): every write is refused until an operator
    compacts, defragments and disarms.

    The write that fills the quota is committed *and* answered with this, so for one write it says
    as little as ``OutcomeUnknown``: never retry anything but the identical transaction.
    """


class Compacted(EtcschedError):
    """The revision asked for is compacted away.

    ``compact_revision`` is the least revision that can still be read.
    """

    def __init__(self, message: str, compact_revision: int) -> None:
        super().__init__(message)
        self.compact_revision = compact_revision


class NotFound(EtcschedError):
    """A job, run, agent or request that doesn't exist."""

    exit_code = 4


class Refused(EtcschedError):
    """The cluster's rules forbid what was asked for now."""

    exit_code = 5


class CalendarInUse(Refused):
    """Jobs go by a calendar that was to be deleted."""


class InvalidJobFile(UsageError):
    """Job files that can't be applied; ``problems`` holds one line each (file:line: field: why)."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class AgentIdInUse(Refused):
    """Another live agent has this id."""


class ClusterRestored(Refused):
    """The cluster shows a lower revision than was seen before: it was restored from a backup, and
    may have forgotten what it acknowledged."""
