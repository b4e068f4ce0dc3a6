"""Makes a failing scenario smaller, as long as it fails in the same way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec.structs import replace

from etcsched.testing.sim.parts import PRODUCT, Parts
from etcsched.testing.sim.scenario import Scenario
from etcsched.testing.sim.simulate import Result, simulate

_LISTS = ("faults", "acts", "jobs", "schedulers", "agents")


def shrink(
    scenario: Scenario,
    failure: Result,
    parts: Parts = PRODUCT,
    *,
    most_s: float = 120.0,
    say: Callable[[str], None] = lambda _line: None,
) -> Scenario:
    """One of its symptoms has to stay; what else it shows may go."""
    give_up_s = time.monotonic() + most_s
    symptoms = failure.symptoms

    def fails(smaller: Scenario) -> bool:
        return bool(simulate(smaller, parts, until=symptoms).symptoms & symptoms)

    improved = True
    while improved and time.monotonic() < give_up_s:
        improved = False
        for smaller in _smaller(scenario):
            if time.monotonic() >= give_up_s:
                break
            if fails(smaller):
                scenario, improved = smaller, True
                say(f"{scenario.size()} pieces")
                break
    return scenario


def _smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Halves first, then single pieces, then shorter, simpler and calmer."""
    for name in _LISTS:
        items = getattr(scenario, name)
        least = 1 if name in ("jobs", "schedulers") else 0
        size = len(items) // 2
        while size >= 1:
            for start in range(0, len(items), size):
                kept = items[:start] + items[start + size :]
                if len(kept) >= least:
                    yield replace(scenario, **{name: kept})
            size //= 2
    ends_s = [fault.at_s + fault.for_s for fault in scenario.faults]
    last_s = 1.0 + max([4.0, *ends_s, *(act.at_s for act in scenario.acts)])
    if last_s < scenario.faulty_s - 1:
        yield replace(scenario, faulty_s=round(last_s, 3))
    for index, job in enumerate(scenario.jobs):
        for field in ("require", "hosts", "retry", "timeout_s", "priority", "catch_up_limit"):
            default = _default_of(job, field)
            if getattr(job, field) != default:
                simpler = replace(job, **{field: default})
                jobs = (*scenario.jobs[:index], simpler, *scenario.jobs[index + 1 :])
                yield replace(scenario, jobs=jobs)


def _default_of(job: Any, field: str) -> Any:

    (found,) = [f for f in msgspec.structs.fields(job) if f.name == field]
    return found.default if found.default is not msgspec.NODEFAULT else found.default_factory()
