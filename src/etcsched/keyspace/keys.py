"""Where each record lives (DESIGN 2, docs/keyspace.md).

The layout is by writer. Everything that is decided by lies between ``election/`` and the end of
``state/``, so that one watch covers it; the archive, the access to outputs, and what barred
schedulers say lie before it.
"""

from __future__ import annotations

from collections.abc import Callable

from etcsched.core.errors import UsageError
from etcsched.core.records import CLUSTER, Kind
from etcsched.keyspace.ops import range_end_of

DEFAULT_PREFIX = "/etcsched/v1/"

_FIXED_PLACES: dict[Kind, str] = {
    Kind.ELECTION: "election/",
    Kind.PRESENCE: "presence/",
    Kind.REPORT: "reports/",
    Kind.LATE_REPORT: "reports/",
    Kind.REQUEST: "requests/",
    Kind.JOB: "spec/jobs/",
    Kind.PAUSE: "spec/pauses/",
    Kind.DRAIN: "spec/drains/",
    Kind.CALENDAR: "spec/calendars/",
    Kind.CONFLICT: "spec/conflicts/",
    Kind.SETTINGS: "spec/settings",
    Kind.EDITED: "spec/edited",
    Kind.TERM: "state/term",
    Kind.WATERMARK: "state/watermark",
    Kind.RUN: "state/runs/",
    Kind.ASSIGNMENT: "state/assignments/",
    Kind.ORDER: "state/orders/",
    Kind.ANSWER: "state/answers/",
    Kind.GAP: "state/gaps/",
    Kind.JOIN: "state/joins/",
    Kind.ROTATION: "state/rotations/",
    Kind.FAN_OUT: "state/fanouts/",
    Kind.SEAT: "state/seats/",
    Kind.LIVE: "state/live/",
}

_LATE = "late"

_DEPTH: dict[Kind, int] = {
    Kind.REPORT: 3,
    Kind.RUN: 2,
    Kind.FAN_OUT: 2,
    Kind.ASSIGNMENT: 3,
    Kind.ORDER: 3,
    Kind.JOIN: 2,
    Kind.SETTINGS: 0,
    Kind.EDITED: 0,
    Kind.TERM: 0,
    Kind.WATERMARK: 0,
}


class Keys:
    """The keys of one cluster, below one prefix that ends with ``/``."""

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        if not (prefix.startswith("/") and prefix.endswith("/") and len(prefix) > 1):
            flaw = "must name a place" if prefix == "/" else "must begin and end with '/'"
            raise UsageError(f"prefix {prefix!r}: {flaw}, e.g. /etcsched/v1/")
        self.prefix = prefix
        self._places = {kind: prefix + place for kind, place in _FIXED_PLACES.items()}
        self.watched = prefix + "election/"
        self.watched_end = prefix + "state0"  # '0' follows '/': the end of state/
        self.archive_prefix = prefix + "archive/"
        self.access_prefix = prefix + "access/"
        self.barred_prefix = prefix + "barred/"
        self._parsers: dict[str, Callable[[list[str]], tuple[Kind, tuple[str, ...]] | None]] = {
            "election": _flat(Kind.ELECTION),
            "presence": _flat(Kind.PRESENCE),
            "requests": _flat(Kind.REQUEST),
            "reports": _report,
            "spec": _below(
                {
                    "jobs": Kind.JOB,
                    "pauses": Kind.PAUSE,
                    "drains": Kind.DRAIN,
                    "calendars": Kind.CALENDAR,
                    "conflicts": Kind.CONFLICT,
                    "settings": Kind.SETTINGS,
                    "edited": Kind.EDITED,
                }
            ),
            "state": _below(
                {
                    "term": Kind.TERM,
                    "watermark": Kind.WATERMARK,
                    "runs": Kind.RUN,
                    "assignments": Kind.ASSIGNMENT,
                    "orders": Kind.ORDER,
                    "answers": Kind.ANSWER,
                    "gaps": Kind.GAP,
                    "joins": Kind.JOIN,
                    "rotations": Kind.ROTATION,
                    "fanouts": Kind.FAN_OUT,
                    "seats": Kind.SEAT,
                    "live": Kind.LIVE,
                }
            ),
        }
        self.term = self.of(Kind.TERM)
        self.watermark = self.of(Kind.WATERMARK)

    def of(self, kind: Kind, *ids: str) -> str:
        """The key of one record; with fewer ids than it has, nothing useful."""
        if kind is Kind.LATE_REPORT and ids:
            agent, *rest = ids
            return f"{self.prefix}reports/{agent}/{_LATE}/{'/'.join(rest)}"
        return self._places[kind] + "/".join(ids)

    def all_of(self, kind: Kind, *ids: str) -> tuple[str, str]:
        """The range of a kind's keys that begin with these ids."""
        prefix = self.of(kind, *ids)
        if ids and not prefix.endswith("/"):
            prefix += "/"
        return prefix, range_end_of(prefix)

    def access(self, agent: str) -> str:
        return f"{self.access_prefix}{agent}"

    def barred(self, node: str) -> str:
        return f"{self.barred_prefix}{node}"

    def archive(self, job: str, run: str) -> str:
        return f"{self.archive_prefix}{job}/{run}"

    def archive_of(self, job: str | None = None) -> tuple[str, str]:
        prefix = self.archive_prefix if job is None else f"{self.archive_prefix}{job}/"
        return prefix, range_end_of(prefix)

    def runs_from(self, job: str, tick: str) -> tuple[tuple[str, str], tuple[str, str]]:
        """The ranges of a job's active and archived runs whose ids are this tick's or later."""
        _, active_end = self.all_of(Kind.RUN, job)
        _, archive_end = self.archive_of(job)
        return (self.of(Kind.RUN, job, tick), active_end), (self.archive(job, tick), archive_end)

    def fan_outs_from(self, job: str, tick: str) -> tuple[str, str]:
        """The range of a job's fan-outs of this tick or later ones."""
        _, end = self.all_of(Kind.FAN_OUT, job)
        return self.of(Kind.FAN_OUT, job, tick), end

    def parse_archive(self, key: str) -> tuple[str, str] | None:
        """(job, run) of an archive key; None for one that isn't ours."""
        job, slash, run = key[len(self.archive_prefix) :].partition("/")
        return (job, run) if slash else None

    def election(self, lease: int) -> str:
        """As etcd's own election recipe names a candidate: the lease in hexadecimal."""
        return self.of(Kind.ELECTION, f"{lease:x}")

    def pause_of_cluster(self) -> str:
        return self.of(Kind.PAUSE, CLUSTER)

    def parse(self, key: str) -> tuple[Kind, tuple[str, ...]] | None:
        """The kind and ids of a key of the watched range; None for one that isn't ours."""
        first, _, rest = key[len(self.prefix) :].partition("/")
        if not rest.isascii():
            return None  # No name has others; bytes that are no text couldn't stand in a record.
        parser = self._parsers.get(first)
        return parser(rest.split("/")) if parser is not None and rest else None


def _flat(kind: Kind) -> Callable[[list[str]], tuple[Kind, tuple[str, ...]] | None]:
    def parse(parts: list[str]) -> tuple[Kind, tuple[str, ...]] | None:
        return (kind, (parts[0],)) if len(parts) == 1 else None

    return parse


def _below(kinds: dict[str, Kind]) -> Callable[[list[str]], tuple[Kind, tuple[str, ...]] | None]:
    def parse(parts: list[str]) -> tuple[Kind, tuple[str, ...]] | None:
        kind = kinds.get(parts[0])
        if kind is None or len(parts) - 1 != _DEPTH.get(kind, 1):
            return None
        return kind, tuple(parts[1:])

    return parse


def _report(parts: list[str]) -> tuple[Kind, tuple[str, ...]] | None:
    match parts:
        case [agent, "late", job, run, token]:
            return Kind.LATE_REPORT, (agent, job, run, token)
        case [agent, job, run]:
            return Kind.REPORT, (agent, job, run)
    return None
