"""How much is measured: in full, or in under two minutes."""

from __future__ import annotations

import msgspec


class Effort(msgspec.Struct, frozen=True, kw_only=True):
    """``turns`` of a throughput measure alternate with its limit. Seconds where it says so."""

    is_quick: bool
    turns: int
    process_runs: int
    noop_runs: int
    cost_runs: int
    cost_turns: int
    lateness_s: int
    single_s: int
    burst_turns: int
    jobs: int
    ttl_s: int
    kills: int
    stops: int
    cold_starts: int
    idle_s: float


FULL = Effort(
    is_quick=False,
    turns=3,
    process_runs=3000,
    noop_runs=10_000,
    cost_runs=1000,
    cost_turns=10,
    lateness_s=30,
    single_s=30,
    burst_turns=5,
    jobs=100_000,
    ttl_s=10,
    kills=3,
    stops=5,
    cold_starts=3,
    idle_s=30.0,
)
QUICK = Effort(
    is_quick=True,
    turns=1,
    process_runs=1000,
    noop_runs=1500,
    cost_runs=200,
    cost_turns=2,
    lateness_s=4,
    single_s=4,
    burst_turns=2,
    jobs=10_000,
    ttl_s=5,
    kills=1,
    stops=2,
    cold_starts=1,
    idle_s=3.0,
)

BURST = 500
"""Ticks due at one instant."""

AGENTS_CONNECTED = 1000
