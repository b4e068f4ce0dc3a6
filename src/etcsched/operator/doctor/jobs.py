"""Of jobs: what they need and isn't there, or doesn't run."""

from __future__ import annotations

from typing import Final

from etcsched.core.leader.context import Context, Options
from etcsched.core.leader.explaining import Explainer
from etcsched.core.leader.reasons import Why
from etcsched.core.states import JobState, RunState
from etcsched.core.text import some
from etcsched.core.timeline import next_tick
from etcsched.core.view import View
from etcsched.jobfile.chains import idle_targets, lone_joins, parted_joins
from etcsched.operator.doctor.finding import Finding, Level

__all__ = ["check_chains", "check_eligible", "check_waiting"]

_ADVICE: Final = (
    "etcsched explain {what} says why; start an agent that its hosts, labels and user allow"
)


def check_chains(view: View) -> list[Finding]:
    jobs = {
        name: entry.record
        for name, entry in view.jobs.items()
        if entry.record.current.state is not JobState.DELETED
    }
    missing = [
        f"{link.to} (of {job.name})"
        for job in jobs.values()
        for link in job.chain
        if link.to not in jobs
    ]
    idle = [f"{target.name} (of {source.name})" for source, target in idle_targets(jobs)]
    alone = [f"{to} (of {source.name})" for source, to in lone_joins(jobs)]
    parted = [f"{one.name} and {two.name} (at {to})" for one, to, two in parted_joins(jobs)]
    findings = []
    if missing:
        text = f"not there, so that nothing follows: {some(missing)}"
        advice = "apply the files that have them, or take them out of the chains"
        findings.append(Finding("chains", Level.BAD, text, advice))
    if idle:
        text = f"disabled or only on request, so that nothing follows: {some(idle)}"
        advice = "apply their files with state: enabled or chain_active, or leave it so"
        findings.append(Finding("chains", Level.WARNING, text, advice))
    if alone:
        text = f"joined by one job only, so that it waits for nobody: {some(alone)}"
        advice = "give the other jobs' chains require: all, too, or leave it out there"
        findings.append(Finding("joins", Level.WARNING, text, advice))
    if parted:
        text = f"per_host begins a chain on each agent, so that these never meet: {some(parted)}"
        advice = "chain to both from one job, or leave require: all out there"
        findings.append(Finding("joins", Level.WARNING, text, advice))
    return findings


def check_eligible(view: View, now_ms: int) -> list[Finding]:
    """Jobs whose next tick will begin an outage, as agents are now. Those that have one already are
    another finding."""
    context = _context_of(view, now_ms)
    alone = [
        name
        for name, entry in sorted(view.jobs.items())
        if name not in view.gaps
        and context.waits_for_agent(entry.record)
        and next_tick(entry.record, view.limits_of(entry.record), now_ms) is not None
    ]
    if not alone:
        return []
    text = f"none may run {some(alone)}, so that the next tick begins an outage"
    return [Finding("eligible agents", Level.WARNING, text, _ADVICE.format(what="JOB"))]


def check_waiting(view: View, now_ms: int) -> list[Finding]:
    """Runs that wait for an agent, and none may run them, however free it is."""
    context = _context_of(view, now_ms)
    alone = [
        key
        for key, entry in sorted(view.runs.items())
        if entry.record.state in (RunState.READY, RunState.RETRYING)
        and (job := view.jobs.get(entry.record.job)) is not None
        and not context.agents.has_eligible(context.agents.wanted(job, entry.record))
    ]
    # What is paused, say, waits for something else.
    explainer = Explainer(view, now_ms) if alone else None
    alone = [key for key in alone if explainer and explainer.reason(key).why is Why.NO_AGENT]
    if not alone:
        return []
    text = f"no agent may run {some(['/'.join(key) for key in alone])}"
    return [Finding("waiting runs", Level.WARNING, text, _ADVICE.format(what="JOB/RUN"))]


def _context_of(view: View, now_ms: int) -> Context:
    context = Context(view, 0, "", Options())
    context.it_is(now_ms, 0.0)
    return context
