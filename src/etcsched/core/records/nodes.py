"""What schedulers and agents say of themselves, under their leases, and of attempts."""

from __future__ import annotations

from etcsched.core.records.base import SCHEMA_VERSION, Record
from etcsched.core.states import Outcome
from etcsched.core.times import Time


class Scheduler(Record, frozen=True, kw_only=True):
    """What each says of itself. ``clock`` is the node's wall clock as it wrote this."""

    node: str
    host: str
    pid: int
    since: Time
    clock: Time
    version: str


class Candidate(Scheduler, frozen=True, kw_only=True):
    """Value of an election key."""

    least_schema: int = SCHEMA_VERSION


class Barred(Scheduler, frozen=True, kw_only=True):
    """One that is here and doesn't stand for election, and why. Leased."""

    reason: str


class Presence(Record, frozen=True, kw_only=True):
    """An agent that is here. ``incarnation`` is its session: the lease, in hexadecimal.

    ``users`` are those whose jobs it runs, ``default_user`` is whom a job without a user runs as.
    ``output_address`` is where it serves what its runs wrote (``OutputAccess``); empty: nowhere.
    """

    agent: str
    incarnation: str
    supervisor: str
    slots: int
    host: str
    pid: int
    since: Time
    clock: Time
    version: str
    labels: dict[str, str] = {}
    session_ttl_s: int = 10
    users: tuple[str, ...] = ()
    default_user: str = ""
    draining: bool = False
    output_address: str = ""


class OutputAccess(Record, frozen=True, kw_only=True):
    """How to get at what an agent's runs wrote, at its presence's ``output_address``: the token
    that it wants, and the SHA-256 of the certificate that it shows. Leased as its presence is, in
    a place of its own, so that who may see the cluster needn't be let see output."""

    agent: str
    token: str
    certificate_sha256: str


class Report(Record, frozen=True, kw_only=True):
    """An agent's word on one attempt: a claim while ``outcome`` is None, then how it ended.

    ``token`` is the assignment's mod revision. ``tail`` is at most 4 KiB of output.
    ``results_problem``: what of the results file couldn't be taken. ``session_ttl_s`` is that of
    the session that claimed the attempt, or adopted it (T6); 0: its assignment's.
    """

    job: str
    run: str
    attempt: int
    token: int
    incarnation: str
    supervisor: str
    claimed_at: Time
    session_ttl_s: int = 0
    started_at: Time | None = None
    outcome: Outcome | None = None
    ended_at: Time | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    cpu_s: float | None = None
    peak_memory_bytes: int | None = None
    output_bytes: int = 0
    tail: str = ""
    results: dict[str, tuple[str, ...]] = {}
    results_problem: str = ""
