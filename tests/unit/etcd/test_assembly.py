from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from etcsched.etcd.assembly import Assembler
from etcsched.keyspace.ops import EventType, KeyValue, WatchBatch, WatchEvent


def event(revision: int, key: str = "k") -> WatchEvent:
    return WatchEvent(EventType.PUT, KeyValue(key, b"", revision, revision, 1, 0))


def test_the_last_revision_of_a_fragment_waits_for_the_next() -> None:
    assembler = Assembler(1)
    batch = assembler.events([event(2), event(3, "a")], more_fragments=True)
    assert batch == WatchBatch((event(2),), 2)
    assert assembler.progress(9) is None
    batch = assembler.events([event(3, "b")], more_fragments=False)
    assert batch == WatchBatch((event(3, "a"), event(3, "b")), 3)


def test_what_was_held_back_is_forgotten_with_its_stream() -> None:
    assembler = Assembler(1)
    assert assembler.events([event(2, "a")], more_fragments=True) is None
    assembler.restart()
    assert assembler.position == 1
    assert assembler.events([event(2, "a"), event(2, "b")], more_fragments=False) == WatchBatch(
        (event(2, "a"), event(2, "b")), 2
    )


def test_events_at_or_before_the_position_are_dropped() -> None:
    assembler = Assembler(5)
    assert assembler.events([event(4), event(5)], more_fragments=False) is None
    assert assembler.position == 5


def test_progress_moves_only_forward() -> None:
    assembler = Assembler(5)
    assert assembler.progress(5) is None
    assert assembler.progress(7) == WatchBatch((), 7)
    assert assembler.progress(6) is None


@given(data=st.data())
def test_any_cutting_and_any_losses_deliver_each_revision_whole_once_in_order(
    data: st.DataObject,
) -> None:
    sizes = data.draw(st.lists(st.integers(1, 4), max_size=12), label="keys of each revision")
    history = [
        event(revision, f"k{number}")
        for revision, size in enumerate(sizes, start=2)
        for number in range(size)
    ]
    assembler = Assembler(1)
    delivered: list[WatchBatch] = []
    while assembler.position < len(sizes) + 1:
        # One stream: from the revision asked for, or from earlier on a lagging member.
        start = data.draw(st.integers(1, assembler.position + 1), label="stream starts at")
        remaining = [item for item in history if item.kv.mod_revision >= start]
        assembler.restart()
        while remaining:
            if data.draw(st.booleans(), label="fragment"):
                cut = data.draw(st.integers(1, len(remaining)), label="cut")
            else:
                last = data.draw(
                    st.integers(remaining[0].kv.mod_revision, len(sizes) + 1), label="whole to"
                )
                cut = sum(item.kv.mod_revision <= last for item in remaining)
            part, remaining = remaining[:cut], remaining[cut:]
            whole = not remaining or part[-1].kv.mod_revision < remaining[0].kv.mod_revision
            batch = assembler.events(part, more_fragments=not whole)
            if batch is not None:
                delivered.append(batch)
            if data.draw(st.integers(0, 9), label="stream lost at 0") == 0:
                break
    assert [item for batch in delivered for item in batch.events] == history
    ends = [batch.revision for batch in delivered]
    assert ends == sorted(set(ends))
    for batch in delivered:
        assert batch.events[-1].kv.mod_revision == batch.revision
