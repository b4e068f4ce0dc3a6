"""I10: assignments only to agents live at that revision, within slots, labels, hosts, conflicts."""

from __future__ import annotations

from etcsched.audit.rules.base import Rule
from etcsched.audit.state import Step, Write
from etcsched.audit.verdict import Invariant
from etcsched.core.records import Assignment, Drain, Job, Kind, Presence


class Placement(Rule):
    """Judged on the state before the revision, which is what the leader's compares saw; slots on
    the state after it."""

    invariant = Invariant.I10
    places = frozenset({Kind.ASSIGNMENT})

    def wrote(self, write: Write, step: Step) -> None:
        new = write.after.record if write.after is not None else None
        if not isinstance(new, Assignment):
            return
        name = f"{new.job}/{new.run} to {new.agent}"
        presence = self.state.record(Presence, Kind.PRESENCE, new.agent)
        is_here = presence is not None and presence.incarnation == new.incarnation
        self.expect(is_here, f"{name}: assigned, but that session of the agent isn't there", step)
        if presence is None:
            return
        is_drained = self.state.record(Drain, Kind.DRAIN, new.agent) is not None
        text = f"{name}: assigned, but the agent drains"
        self.expect(not (presence.draining or is_drained), text, step)
        job = self.state.record(Job, Kind.JOB, new.job)
        if job is None:
            return
        for label, value in job.require.items():
            text = f"{name}: the job requires {label}={value}, the agent has {presence.labels}"
            self.expect(presence.labels.get(label) == value, text, step)
        if job.hosts:
            text = f"{name}: the agent is not among the job's hosts {', '.join(job.hosts)}"
            self.expect(new.agent in job.hosts or not self._hosts_count(new), text, step)
        user = job.user or presence.default_user
        may_run_as = not user or not presence.users or {user, "*"} & set(presence.users)
        self.expect(bool(may_run_as), f"{name}: the agent runs nothing as {user}", step)

    def _hosts_count(self, new: Assignment) -> bool:
        """A job can choose that its fixed hosts bind only scheduled runs."""
        job = self.state.record(Job, Kind.JOB, new.job)
        return getattr(getattr(job, "hosts_for", None), "value", "all") == "all"

    def committed(self, step: Step) -> None:
        agents = {
            write.ids[0] for write in step.writes if write.place is Kind.ASSIGNMENT and write.is_new
        }
        for agent in agents:
            presence = self.state.record(Presence, Kind.PRESENCE, agent)
            if presence is not None:
                used = len(self.state.work_of.get(agent, ()))
                text = f"{agent}: {used} assignments are more than its {presence.slots} slots"
                self.expect(used <= presence.slots, text, step)
