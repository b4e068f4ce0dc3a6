"""Looks for a scenario that shows a planted bug, and makes sure that the bug alone is to blame."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
from msgspec.structs import replace

from etcsched.testing.sim.generate import scenario_of
from etcsched.testing.sim.scenario import Scenario
from etcsched.testing.sim.shrink import shrink
from etcsched.testing.sim.simulate import Result, simulate
from tests.mutants.planted import Planted

__all__ = ["Catch", "hunt", "keep", "kept", "try_kept"]

VARIATIONS = 100
_KEPT = Path(__file__).parent / "scenarios"


class Catch(msgspec.Struct, frozen=True, kw_only=True):
    """``scenario`` None: none of ``seeds`` many showed it. ``by``: the invariants that did."""

    name: str
    took_s: float
    seeds: int
    scenario: Scenario | None = None
    by: tuple[str, ...] = ()
    first: str = ""


def hunt(planted: Planted, first: int, seeds: int) -> Catch:
    began_s = time.monotonic()
    for tried, seed in enumerate(range(first, first + seeds), start=1):
        catch = _try(planted, scenario_of(seed, more=planted.faults), began_s, tried)
        if catch.scenario is not None:
            return catch
    return Catch(name=planted.name, took_s=time.monotonic() - began_s, seeds=seeds)


def try_kept(planted: Planted) -> Catch:
    """On the scenario that once showed it; with other chances, where a change of the product has
    shifted its timing by some milliseconds."""
    began_s, scenario = time.monotonic(), kept(planted)
    for tried in range(1, VARIATIONS + 1):
        varied = replace(scenario, seed=scenario.seed + tried - 1)
        catch = _try(planted, varied, began_s, tried)
        if catch.scenario is not None:
            break
    return catch


def kept(planted: Planted) -> Scenario:
    return msgspec.json.decode((_KEPT / f"{planted.name}.json").read_bytes(), type=Scenario)


def keep(planted: Planted, catch: Catch, most_s: float = 60.0) -> None:
    """Made small, as long as it still shows the bug and nothing without it."""
    assert catch.scenario is not None
    with planted.switched_on():
        result = simulate(catch.scenario, planted.parts, until=planted.shows_as)
        smaller = shrink(catch.scenario, result, planted.parts, most_s=most_s)
    scenario = catch.scenario
    if _try(planted, smaller, 0.0, 1).scenario is not None:
        scenario = smaller
    _KEPT.mkdir(exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(scenario), indent=1)
    (_KEPT / f"{planted.name}.json").write_bytes(text + b"\n")


def _try(planted: Planted, scenario: Scenario, began_s: float, tried: int) -> Catch:
    with planted.switched_on():
        result = simulate(scenario, planted.parts, until=planted.shows_as)
    shown = planted.shows_as.intersection(result.violated)
    is_to_blame = bool(shown) and not simulate(scenario).failed
    return Catch(
        name=planted.name,
        took_s=time.monotonic() - began_s,
        seeds=tried,
        scenario=scenario if is_to_blame else None,
        by=tuple(sorted(shown)),
        first=_first(result, shown),
    )


def _first(result: Result, shown: frozenset[str]) -> str:
    told = (text for text in result.violations if text.partition(" ")[0].rstrip(":") in shown)
    return next(told, "")
