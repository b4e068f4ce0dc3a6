"""Time as the cores see it: instants that come with events, and the clock of ticks."""

from __future__ import annotations

from itertools import takewhile

import msgspec

MAX_JUMP_S = 2.0
"""Wall against monotonic time: a larger difference is a jump, and ends a leadership."""

MAX_SLEW = 0.05
"""A smaller difference is followed at no more than this share of the time that passes."""

MAX_SKEW_S = 5.0
"""A node whose clock differs by more from the nodes' median doesn't lead."""

CLOCK_EVERY_S = 60.0
"""How often each node shows the others its clock."""


class Instant(msgspec.Struct, frozen=True):
    """``wall_ms`` is Unix time in milliseconds, ``mono_s`` a monotonic clock that runs on while the
    machine is suspended."""

    wall_ms: int
    mono_s: float


class TickClock:
    """The time that ticks go by: the wall clock as leadership began, carried on monotonically."""

    def __init__(self, began: Instant) -> None:
        self._seen = began
        self._tick_ms = float(began.wall_ms)

    def at(self, now: Instant) -> int | None:
        """Tick time, in Unix milliseconds, never less than before; None: the wall clock jumped."""
        passed_ms = max(0.0, (now.mono_s - self._seen.mono_s) * 1000)
        jump_ms = now.wall_ms - self._seen.wall_ms - passed_ms
        if abs(jump_ms) > MAX_JUMP_S * 1000:
            return None
        self._seen = now
        steady_ms = self._tick_ms + passed_ms
        behind_ms = now.wall_ms - steady_ms
        if abs(behind_ms) > MAX_JUMP_S * 1000:
            return None  # Small steps that add up: the slew can't follow.
        most_ms = MAX_SLEW * passed_ms
        self._tick_ms = steady_ms + min(most_ms, max(-most_ms, behind_ms))
        return int(self._tick_ms)


class SkewWatch:
    """How far the other nodes' clocks are from ours, by what they wrote and when we saw it.

    When something was seen, the monotonic clock says: ours may have been set since, and what others
    showed before then counts against the clock as it is now. A clock of ours that jumped has to be
    confirmed: where nobody can tell which of two clocks is right, it is taken for the wrong one.
    """

    def __init__(self, kept_s: float = 180.0) -> None:
        self._kept_s = kept_s
        self._samples: dict[str, tuple[int, float]] = {}
        self._seen: Instant | None = None
        self._jumped_at_s: float | None = None

    def sample(self, node: str, clock_ms: int, seen: Instant) -> None:
        """Only for what was seen as it was written, not for what a listing found."""
        self._look_for_jump(seen)
        self._samples.pop(node, None)  # The newest stands last.
        self._samples[node] = (clock_ms, seen.mono_s)
        self._forget(seen)

    def __len__(self) -> int:
        """How many others it goes by."""
        return len(self._samples)

    def verdict(self, now: Instant) -> str | None:
        """Why our clock isn't to be trusted; None: it is, or nobody can tell."""
        self._look_for_jump(now)
        self._forget(now)
        others = [
            (clock_ms - now.wall_ms) / 1000 + now.mono_s - at_s
            for clock_ms, at_s in self._samples.values()
        ]
        if all(-MAX_SKEW_S <= offset <= MAX_SKEW_S for offset in others):
            return None
        offsets = sorted([0.0, *others])  # Ours is 0.
        # Of an even number the median is between these two: which of them is right, nobody can
        # tell.
        low_s, high_s = offsets[(len(offsets) - 1) // 2], offsets[len(offsets) // 2]
        if self._has_jumped(now):
            low_s = high_s = max(low_s, high_s, key=abs)
        if low_s <= MAX_SKEW_S and high_s >= -MAX_SKEW_S:
            return None
        direction = "behind" if low_s > 0 else "ahead of"
        return (
            f"this node's clock is {min(abs(low_s), abs(high_s)):.1f} s {direction} most nodes'; "
            "set it right (chrony or systemd-timesyncd)"
        )

    def _forget(self, now: Instant) -> None:
        """What is too old to count: its node may be gone, and the next has another name."""
        oldest_first = self._samples.items()
        is_old = takewhile(lambda sample: now.mono_s - sample[1][1] > self._kept_s, oldest_first)
        for node in [node for node, _ in is_old]:
            del self._samples[node]

    def _look_for_jump(self, now: Instant) -> None:
        before, self._seen = self._seen, now
        if before is not None:
            passed_ms = (now.mono_s - before.mono_s) * 1000
            if abs(now.wall_ms - before.wall_ms - passed_ms) > MAX_JUMP_S * 1000:
                self._jumped_at_s = now.mono_s

    def _has_jumped(self, now: Instant) -> bool:
        """... so lately that others' samples are of the time around it."""
        return self._jumped_at_s is not None and now.mono_s - self._jumped_at_s <= self._kept_s
