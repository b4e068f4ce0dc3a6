"""What the simulator takes from the product, in one place: a planted bug replaces one part
(tests/mutants), and everything else stays what it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from etcsched.agent.supervisor.attempt import Attempt
from etcsched.core.agent.machine import AgentMachine
from etcsched.core.candidate import CandidateMachine
from etcsched.core.leader.machine import LeaderMachine
from etcsched.core.outage import OutageProof, Sight
from etcsched.core.session import SessionValidity, first_validity
from etcsched.core.view import View
from etcsched.keyspace.feed import Feed
from etcsched.keyspace.outbox import Outbox
from etcsched.keyspace.presence_steps import PresenceSteps
from etcsched.keyspace.transactions import (
    AgentGuard,
    AgentTransactions,
    LeaderGuard,
    LeaderTransactions,
    join_election,
    win_term,
)


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Classes and functions under their own names. Two planted bugs lie in no part: to take an
    unknown outcome for a failure, and what a refused connection shows of a member."""

    candidate: Callable[..., CandidateMachine] = CandidateMachine
    leader: Callable[..., LeaderMachine] = LeaderMachine
    agent: Callable[..., AgentMachine] = AgentMachine
    view: Callable[..., View] = View
    feed: Callable[..., Feed] = Feed
    outbox: Callable[..., Outbox] = Outbox
    presence_steps: Callable[..., PresenceSteps] = PresenceSteps
    leader_guard: Callable[..., LeaderGuard] = LeaderGuard
    agent_guard: Callable[..., AgentGuard] = AgentGuard
    leader_transactions: Callable[..., LeaderTransactions] = LeaderTransactions
    agent_transactions: Callable[..., AgentTransactions] = AgentTransactions
    join_election: Callable[..., Any] = join_election
    win_term: Callable[..., Any] = win_term
    first_validity: Callable[..., SessionValidity] = first_validity
    supervised: Callable[..., Attempt] = Attempt
    outage_proof: Callable[..., OutageProof] = OutageProof
    unknown_is_failure: bool = False
    sight_of_refusal: Sight = Sight.UNKNOWN


PRODUCT = Parts()
