"""What a leader writes about anything but runs."""

from __future__ import annotations

from etcsched.core.records.base import SCHEMA_VERSION, Part, Record
from etcsched.core.states import Occasion, Origin, RunState, Stage
from etcsched.core.times import Utc


class Term(Record, frozen=True, kw_only=True):
    """``election_key`` is the last part of the leader's key below ``election/``: its lease in
    hexadecimal. ``token`` is that key's create revision: the fencing token."""

    number: int
    leader: str
    election_key: str
    token: int
    since: Utc
    least_schema: int = SCHEMA_VERSION


class Watermark(Record, frozen=True, kw_only=True):
    """All ticks of all jobs up to and including ``through`` are decided.

    ``through`` stands right behind ``v``: transactions compare it as text.
    """

    through: Utc
    term: int


class Gap(Record, frozen=True, kw_only=True):
    """An outage of one job. While it is open, ticks later than ``decided_through`` wait for its
    end. Once closed, the record stays until the watermark has passed ``decided_through``, so that
    a leader who takes over decides no tick of it again.

    ``followed`` names the targets that were asked for the missed ticks that ``decided_through``
    ends, and for which tick's record: what goes on with them is of the same stretch, and isn't
    asked for these. Ticks up to ``alone_through`` may be decided one by one already, beyond
    ``decided_through``.
    """

    job: str
    since: Utc
    decided_through: Utc
    reason: str
    closed: bool = False
    followed: dict[str, Utc] = {}
    alone_through: Utc | None = None


class Arrival(Part, frozen=True, kw_only=True):
    """A run that has come to a join, with what it hands on."""

    job: str
    run: str
    state: RunState
    at: Utc
    depth: int = 0
    scheduled_at: Utc | None = None
    params: dict[str, str] = {}


class Join(Record, frozen=True, kw_only=True):
    """Of one chain ``instance``, who has come to where several sources begin one run of ``job``;
    ``run`` will be its id. A job that comes again takes the place of its own earlier run."""

    job: str
    instance: str
    run: str
    since: Utc
    arrived: tuple[Arrival, ...]


class FanOut(Record, frozen=True, kw_only=True):
    """A tick of a job that runs on each agent (``per_host``): decided, and becoming one run for
    each of ``agents``, which are those that were eligible then. ``run`` is the tick; ``origin`` and
    ``cause`` are their runs'. It stays until all of them are there and the watermark has passed."""

    job: str
    run: str
    scheduled_at: Utc
    agents: tuple[str, ...]
    origin: Origin
    cause: str
    at: Utc
    term: int


class Seat(Record, frozen=True, kw_only=True):
    """An agent's right to receive runs, where settings bound how many have it."""

    agent: str
    since: Utc
    term: int


class Due(Part, frozen=True, kw_only=True):
    """A lifecycle run that is decided and not made yet."""

    occasion: Occasion
    job: str


class Live(Record, frozen=True, kw_only=True):
    """What the leader has decided about the coming and going of one ``incarnation`` of an agent:
    that it is in its ``stage`` ``since`` then, and which runs are ``due`` for that."""

    agent: str
    incarnation: str
    stage: Stage
    since: Utc
    term: int
    due: tuple[Due, ...] = ()


class Rotation(Record, frozen=True, kw_only=True):
    """Which agent had the last turn of a job that goes around its agents (``round_robin``)."""

    job: str
    agent: str
