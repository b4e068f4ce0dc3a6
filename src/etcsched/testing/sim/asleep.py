"""Whether the leader sleeps: what one who looked at every run and outage anew would do now, it does
itself.

A leader looks at a run again when something that it depends on has changed. Which changes these
are is easily forgotten for a pair of features, and little would show it: the next change wakes the
run. So the simulator asks the product's own explanation, which looks at everything at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcsched.core.leader.context import Context, Options
from etcsched.core.leader.explaining import Explainer
from etcsched.core.leader.pace import is_paced
from etcsched.core.leader.reasons import Why

if TYPE_CHECKING:
    from etcsched.testing.sim.cluster import Cluster
    from etcsched.testing.sim.scheduler import SimScheduler

LOOK_EVERY_S = 4.0
MOST_STRETCHED = 10
"""In a cluster that is slower than others it looks less often, but not by more than this."""
MOST_LOOKS = 3
"""With nothing wrong anywhere, a run that isn't held up has moved by then. (A leader's own tasks
may take two of them: joins are swept every ten seconds.)"""

_Seen = dict[tuple[str, str, str, int], int]
"""Leader, job, run, revision: in how many looks in a row nothing held it up."""


class Asleep(AssertionError):
    """A run that nothing holds up, or an outage that nobody is waited for in, and the leader
    doesn't look at it."""


class Watchman:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._seen: _Seen = {}
        self._every_s = LOOK_EVERY_S * min(cluster.scenario.stretch, MOST_STRETCHED)
        cluster.loop.after(self._every_s, self._look)

    def _look(self) -> None:
        leader = self._cluster.leader()
        before, self._seen = self._seen, {}
        if leader is not None and leader.machine is not None and not self._cluster.has_faults:
            self._seen = {
                place: before.get(place, 0) + 1 for place in (*_free(leader), *_ended(leader))
            }
        for (node, job, run, _), looks in self._seen.items():
            if looks > MOST_LOOKS:
                raise Asleep(f"{node} doesn't look at {job}/{run}, which nothing holds up")
        self._cluster.loop.after(self._every_s, self._look)


def _free(leader: SimScheduler) -> list[tuple[str, str, str, int]]:
    view = leader.view
    if not view.runs:
        return []
    explainer = Explainer(view, leader.process.clock.now().wall_ms)
    return [
        (leader.name, *key, entry.mod_revision)
        for key, entry in view.runs.items()
        if not is_paced(entry.record) and explainer.reason(key).why is Why.NEXT
    ]


def _ended(leader: SimScheduler) -> list[tuple[str, str, str, int]]:
    """Outages for want of an agent, and one is there. Their recovery puts the gap at each step."""
    view, machine = leader.view, leader.machine
    assert machine is not None
    context = Context(view, 0, "", Options())
    context.it_is(leader.process.clock.now().wall_ms, 0.0)
    return [
        (leader.name, name, "its outage", gap.mod_revision)
        for name, gap in view.gaps.items()
        if not gap.record.closed
        and (job := view.jobs.get(name)) is not None
        and not context.waits_for_agent(job.record)
        and not machine.is_set_aside(name)
    ]
