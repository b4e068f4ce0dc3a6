"""``chain``: where a job's runs go on, and whether all chains together make sense."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Final

from etcsched.core.conditions import number_of
from etcsched.core.records import Condition, Job, Link, params_clash
from etcsched.core.schedule import Cron, schedule_of
from etcsched.core.states import FINAL, NUMERIC, ConditionOp, JobState, RunState
from etcsched.jobfile.fields import VARIABLE, check_known, choice, flaw_of_param
from etcsched.jobfile.nodes import FieldError, Value, unknown_text

__all__ = [
    "MAX_LINKS",
    "check_chains",
    "idle_targets",
    "lone_joins",
    "parted_joins",
    "read_chain",
    "read_final_states",
    "read_results",
]

MAX_LINKS: Final = 16
"""Of a chain and its notifications together: the transaction that ends a run carries them all."""

Jobs = Mapping[str, Job] | None

_EXAMPLE: Final = "[{to: report}]"
_FIELDS: Final = ["to", "on", "when", "within", "require"]
_OPERATORS: Final = [op.value for op in ConditionOp if op is not ConditionOp.MISSING]


def read_chain(value: Value) -> tuple[Link, ...]:
    """One link or a list of them."""
    items = value.items(_EXAMPLE) if value.is_list() else [value]
    if len(items) > MAX_LINKS:
        raise FieldError(value, f"has {len(items)} links; {MAX_LINKS} are allowed")
    return tuple(_read_link(item) for item in items)


def _read_link(value: Value) -> Link:
    entries = value.entries("{to: report, on: [completed]}")
    check_known(entries, _FIELDS)
    if "to" not in entries:
        raise FieldError(value, "names no job to go on with; write e.g. {to: report}")
    given: dict[str, object] = {}
    if "on" in entries:
        given["on"] = read_final_states(entries["on"])
    if "when" in entries:
        given["when"] = _read_conditions(entries["when"])
    if "within" in entries:
        given["within"] = _read_window(entries["within"])
    if "require" in entries:
        if entries["require"].text() != "all":
            raise FieldError(entries["require"], "takes all, or is left out")
        given["joins"] = True
    return Link(to=entries["to"].text(), **given)  # type: ignore[arg-type]


def read_final_states(value: Value) -> tuple[RunState, ...]:
    read = choice(RunState, *(state for state in RunState if state not in FINAL))
    items = value.items("[completed]") if value.is_list() else [value]
    states = tuple(dict.fromkeys(read(item) for item in items))
    if not states:
        raise FieldError(value, "is empty; write e.g. [completed]")
    return states


def read_results(value: Value) -> tuple[str, ...]:
    """They become parameters of what follows, so they take no names that a parameter can't have."""
    items = value.items("[rows, file]") if value.is_list() else [value]
    for item in items:
        _check_name(item, item.text())
        flaw = flaw_of_param(item.text())
        if flaw is not None:
            raise FieldError(item, flaw)
    names = dict.fromkeys((item.text() for item in items), "")
    clash = params_clash(names, names)
    if clash is not None:
        raise FieldError(value, f"become parameters of what follows, and {clash}")
    return tuple(names)


def _check_name(value: Value, name: str) -> None:
    if VARIABLE.fullmatch(name) is None:
        raise FieldError(value, f"{name!r} is no result's name; it takes letters, digits and '_'")


def _read_window(value: Value) -> str:
    expression = value.text()
    try:
        schedule_of((Cron(expression),), "UTC")
    except ValueError as error:
        raise FieldError(value, str(error).removeprefix("cron ")) from None
    return expression


def _read_conditions(value: Value) -> tuple[Condition, ...]:
    """``{rows: {more_than: 0, not_in: [7, 8]}, kind: full}``: a value alone is to be equalled."""
    found: list[Condition] = []
    for name, entry in value.entries("{rows: {more_than: 0}}").items():
        _check_name(entry, name)
        if not entry.is_map():
            found.append(Condition(name=name, op=ConditionOp.EQUALS, values=(entry.text(),)))
            continue
        tests = entry.entries("{more_than: 0}")
        for operator, operand in tests.items():
            if operator not in _OPERATORS:
                raise FieldError(operand, unknown_text("condition", operator, _OPERATORS))
            found.append(_read_condition(name, ConditionOp(operator), operand))
        if not tests:
            raise FieldError(entry, "asks nothing; write e.g. {exists: true}")
    return tuple(found)


def _read_condition(name: str, op: ConditionOp, value: Value) -> Condition:
    if op is ConditionOp.EXISTS:
        given = value.text()
        if given not in ("true", "false"):
            raise FieldError(value, f"{given!r} is neither true nor false")
        return Condition(name=name, op=op if given == "true" else ConditionOp.MISSING)
    if op in (ConditionOp.IN, ConditionOp.NOT_IN):
        values = tuple(item.text() for item in value.items("[a, b]"))
        if not values:
            raise FieldError(value, "is empty; write e.g. [a, b]")
        return Condition(name=name, op=op, values=values)
    given = value.text()
    if op in NUMERIC and number_of(given) is None:
        raise FieldError(value, f"{given!r} is no number")
    return Condition(name=name, op=op, values=(given,))


def check_chains(jobs: Mapping[str, Job], places: Mapping[str, Value], others: Jobs) -> None:
    """All chains of ``jobs`` together with those that the cluster has (``others``; None: nobody
    looked). ``places`` is where each job's chain is written."""
    known = {**(others or {}), **jobs}
    for name, at in places.items():
        for number, link in enumerate(jobs[name].chain):
            _check_link(name, link, _place_of(at, number), known, others is not None)
    _check_cycles(places, known)


def _check_link(
    name: str,
    link: Link,
    at: Value,
    known: Mapping[str, Job],
    is_cluster_known: bool,
) -> None:
    target = known.get(link.to)
    if target is None or target.current.state is JobState.DELETED:
        hint = "" if is_cluster_known else "; give the file that has it, too"
        there = [n for n, job in known.items() if job.current.state is not JobState.DELETED]
        at.refuse(f"{unknown_text('job', link.to, there)}{hint}")
        return
    declared = known[name].results
    results = dict.fromkeys(declared, "")
    clash = params_clash({**known[name].params, **target.params, **results}, results)
    if clash is not None:
        at.refuse(f"results become parameters of {link.to}, and {clash}")
    for condition in link.when:
        if declared and condition.name not in declared:
            at.refuse(unknown_text("result", condition.name, list(declared)))


def idle_targets(jobs: Mapping[str, Job]) -> list[tuple[Job, Job]]:
    """(source, target) where the target's state never lets it run for a chain. That is no mistake:
    whoever disables a job doesn't want to undo the chains that lead to it. The leader says in the
    source's runs what it didn't begin."""
    return [
        (source, jobs[to])
        for source, to in _links(jobs, is_join=False)
        if to in jobs
        and JobState.DELETED not in (states := _states(jobs[to]))
        and states.isdisjoint((JobState.ENABLED, JobState.CHAIN_ACTIVE))
    ]


def lone_joins(jobs: Mapping[str, Job]) -> list[tuple[Job, str]]:
    """(source, target) where ``require: all`` waits for nobody, since no other job joins there."""
    joins = _links(jobs, is_join=True)
    sources = Counter(to for _, to in joins)
    return [(source, to) for source, to in joins if sources[to] == 1]


def parted_joins(jobs: Mapping[str, Job]) -> list[tuple[Job, str, Job]]:
    """(source, target, other) where ``require: all`` waits in vain for that other one: each run of
    a tick with ``per_host`` begins a chain of its own, so what follows it meets what follows the
    same run, or, on its agent, another such job's run of the same tick; never a plain job's."""
    if not any(job.per_host for job in jobs.values()):
        return []
    leading: defaultdict[str, list[Job]] = defaultdict(list)
    for source, to in _links(jobs, is_join=False):
        leading[to].append(source)
    joining: defaultdict[str, list[tuple[Job, set[bool]]]] = defaultdict(list)
    for source, to in _links(jobs, is_join=True):
        joining[to].append((source, _kinds(source, leading)))
    found = []
    for to, sources in joining.items():
        apart = [source for source, kinds in sources if kinds == {True}]
        others = [source for source, kinds in sources if True not in kinds]
        found += [(source, to, other) for source in apart for other in others[:1]]
    return found


def _kinds(job: Job, leading: Mapping[str, list[Job]]) -> set[bool]:
    """Of the chains that its runs belong to: whether it is ``per_host`` that begins them."""
    found, seen, ahead = set(), {job.name}, [job]
    while ahead:
        each = ahead.pop()
        if _has_ticks(each):
            found.add(each.per_host)
        before = [source for source in leading.get(each.name, ()) if source.name not in seen]
        seen.update(source.name for source in before)
        ahead += before
    return found


def _has_ticks(job: Job) -> bool:
    current = job.current
    return JobState.ENABLED in _states(job) and bool(
        current.patterns or any(window.patterns for window in current.windows)
    )


def _links(jobs: Mapping[str, Job], *, is_join: bool) -> list[tuple[Job, str]]:
    """Each once, of jobs that run at all; ``is_join``: only those that join."""
    return [
        (job, to)
        for job in jobs.values()
        if not _states(job) <= {JobState.DISABLED, JobState.DELETED}
        for to in dict.fromkeys(link.to for link in job.chain if link.joins or not is_join)
    ]


def _states(job: Job) -> set[JobState]:
    """That it has, or will have in a window."""
    windows = (window.state for window in job.current.windows)
    return {job.current.state, *(state for state in windows if state is not None)}


def _place_of(chain: Value, number: int) -> Value:
    """Of a link; those of notifications come last, and have no item of their own."""
    items = chain.items(_EXAMPLE) if chain.is_list() else [chain]
    return items[number] if number < len(items) else chain


def _check_cycles(places: Mapping[str, Value], known: Mapping[str, Job]) -> None:
    """Each link that closes a cycle, found from the first job on. A cycle that these files have no
    part in isn't theirs to mend."""
    done: set[str] = set()
    for start in places:
        path: dict[str, Iterator[Link]] = {}
        if start in known and start not in done:
            path[start] = iter(known[start].chain)
        while path:
            name = next(reversed(path))
            link = next(path[name], None)
            if link is None:
                done.add(path.popitem()[0])
            elif link.to in path:
                names = list(path)
                _refuse_cycle([*names[names.index(link.to) :], link.to], places, known)
            elif link.to in known and link.to not in done:
                path[link.to] = iter(known[link.to].chain)


def _refuse_cycle(cycle: list[str], places: Mapping[str, Value], known: Mapping[str, Job]) -> None:
    for name, to in reversed(list(pairwise(cycle))):
        if name in places:
            number = next(n for n, link in enumerate(known[name].chain) if link.to == to)
            _place_of(places[name], number).refuse(f"makes a cycle: {' -> '.join(cycle)}")
            return
