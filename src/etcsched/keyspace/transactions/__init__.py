"""The only place where transactions are built (DESIGN 3 to 5), a module for each writer.

Every process commits *outer* transactions, guarded by its own key, that hold one *nested*
transaction per write. A refused guard means: you are no longer what you were. A refused nested
transaction means: this one decision rested on something that has changed.

``outer`` guards and measures; ``leader``, ``agent`` and ``operator`` build what each of them
writes; ``nodes`` what a node says of itself under its lease.
"""

from etcsched.keyspace.transactions.agent import (
    AgentTransactions,
)
from etcsched.keyspace.transactions.leader import (
    LeaderTransactions,
)
from etcsched.keyspace.transactions.nodes import (
    join_election,
    join_presence,
    leave_election,
    leave_presence,
    say_barred,
    unsay_barred,
    update_candidate,
    update_presence,
    win_term,
)
from etcsched.keyspace.transactions.operator import (
    TicksSeen,
    delete_calendar,
    delete_group,
    end_drain,
    submit_request,
    write_calendar,
    write_drain,
    write_group,
    write_jobs,
    write_pause,
    write_settings,
)
from etcsched.keyspace.transactions.outer import (
    MAX_BYTES,
    MAX_OPERATIONS,
    AgentGuard,
    LeaderGuard,
    cost,
    guarded,
    size_bytes,
    touched,
)

__all__ = [
    "MAX_BYTES",
    "MAX_OPERATIONS",
    "AgentGuard",
    "AgentTransactions",
    "LeaderGuard",
    "LeaderTransactions",
    "TicksSeen",
    "cost",
    "delete_calendar",
    "delete_group",
    "end_drain",
    "guarded",
    "join_election",
    "join_presence",
    "leave_election",
    "leave_presence",
    "say_barred",
    "size_bytes",
    "submit_request",
    "touched",
    "unsay_barred",
    "update_candidate",
    "update_presence",
    "win_term",
    "write_calendar",
    "write_drain",
    "write_group",
    "write_jobs",
    "write_pause",
    "write_settings",
]
