"""A run waits on in another way: the one place that writes so."""

from __future__ import annotations

from typing import Any

from etcsched.core.leader import effects as fx
from etcsched.core.leader.context import Context
from etcsched.core.leader.matters import run_matter
from etcsched.core.leader.runs import step
from etcsched.core.records import Run
from etcsched.core.states import RunState
from etcsched.core.view import Entry


def requeue(
    context: Context, entry: Entry[Run], state: RunState, cause: str, **changes: Any
) -> None:
    run = entry.record
    changed = step(context.author, run, entry.mod_revision, state, cause, **changes)
    write = fx.Requeue(seq=context.next_seq(), run=changed, run_revision=entry.mod_revision)
    context.write(write, run_matter((run.job, run.id)))
    context.say(f"{state.value}: {cause}", run=(run.job, run.id))
