"""What must hold (FAULTS, invariants): a module each, or several."""

from __future__ import annotations

from etcsched.audit.rules.base import Court, Rule
from etcsched.audit.rules.i01_ticks import Ticks
from etcsched.audit.rules.i02_lateness import Lateness
from etcsched.audit.rules.i03_overlap import Overlap
from etcsched.audit.rules.i04_succession import Succession
from etcsched.audit.rules.i05_tokens import Tokens
from etcsched.audit.rules.i06_leaders import Leaders
from etcsched.audit.rules.i07_chains import Chains
from etcsched.audit.rules.i07_history import Histories
from etcsched.audit.rules.i07_joins import Joins
from etcsched.audit.rules.i07_missed import MissedTicks
from etcsched.audit.rules.i07_outcomes import Outcomes
from etcsched.audit.rules.i08_operations import Operations
from etcsched.audit.rules.i08_resubmissions import Resubmissions
from etcsched.audit.rules.i09_recovery import Recoveries
from etcsched.audit.rules.i10_given_up import GivenUp
from etcsched.audit.rules.i10_placement import Placement
from etcsched.audit.rules.i10_precedence import Precedence
from etcsched.audit.rules.i10_turns import Turns
from etcsched.audit.rules.i11_fencing import Fencing
from etcsched.audit.rules.i12_remains import Remains
from etcsched.audit.rules.i13_views import Views
from etcsched.audit.rules.i14_stops import Stops
from etcsched.audit.rules.i15_completion import Completion
from etcsched.audit.rules.i16_lifecycle import Lifecycles

__all__ = ["RULES", "Court", "Rule"]

RULES: tuple[type[Rule], ...] = (
    Ticks,
    Lateness,
    Overlap,
    Succession,
    Tokens,
    Leaders,
    Outcomes,
    Histories,
    Chains,
    Joins,
    MissedTicks,
    Operations,
    Resubmissions,
    Recoveries,
    Placement,
    Turns,
    Precedence,
    GivenUp,
    Fencing,
    Remains,
    Views,
    Stops,
    Completion,
    Lifecycles,
)
