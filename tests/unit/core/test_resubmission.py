"""How many originals a leader reads at once, however many are asked for."""

from __future__ import annotations

from typing import Any

from etcsched.core.leader import effects as fx
from etcsched.core.leader.context import Context, Options
from etcsched.core.leader.resubmission import MAX_READS, Resubmissions
from etcsched.core.records import Change, Kind
from etcsched.core.view import View
from tests.support.jobs import job, resubmit


def reads(context: Context) -> list[str]:
    effects, context.effects = context.effects, []
    return [effect.run_id for effect in effects if isinstance(effect, fx.ReadArchived)]


def test_reads_are_paced() -> None:
    view = View()
    asked = [resubmit(f"r{number:04}", f"run{number:04}") for number in range(3000)]
    changes = [Change(Kind.JOB, ("backup",), job(every_s=60), 1)]
    changes += [Change(Kind.REQUEST, (request.id,), request, 1) for request in asked]
    view.apply(changes, 1)
    context = Context(view, 1, "s1", Options())
    again: list[str] = []
    consume: Any = None
    resubmissions = Resubmissions(context, consume, again.append)
    for request in asked:
        resubmissions.decide(view.requests[request.id])
    first = reads(context)
    assert first == [f"run{number:04}" for number in range(MAX_READS)]
    resubmissions.archived_read("backup", first[0], None, 0)
    assert again == ["r0000"]
    assert reads(context) == [f"run{MAX_READS:04}"]
    for run in first[1:]:
        resubmissions.archived_read("backup", run, None, 0)
    assert len(reads(context)) == MAX_READS - 1
