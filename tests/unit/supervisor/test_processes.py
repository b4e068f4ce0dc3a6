"""Reading /proc, held to processes that are really there."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from etcsched.agent.supervisor import processes

_OURS = f"ours {os.getpid()}"
"""Tests of other processes have such a family at the same time."""

NAME = "a name ) with (parentheses"


@pytest.fixture
def family() -> Iterator[tuple[int, int]]:
    """A shell and its child, both until they are killed."""
    shell = subprocess.Popen(
        ["/bin/sh", "-c", "sleep 1000 & echo $!; wait"],
        stdout=subprocess.PIPE,
        env={"PATH": "/bin:/usr/bin", "FAMILY": _OURS},
    )
    assert shell.stdout is not None
    child = int(shell.stdout.readline())
    yield shell.pid, child
    for pid in (child, shell.pid):
        os.kill(pid, signal.SIGKILL)
    shell.wait()
    shell.stdout.close()


def test_children_and_trees(family: tuple[int, int]) -> None:
    shell, child = family
    assert shell in processes.own_children()
    assert processes.children_of(shell) == [child]
    assert processes.trees_of([shell]) == {shell: os.getpid(), child: shell}


def test_a_scan_finds_the_same_children(family: tuple[int, int]) -> None:
    """For kernels that list no children."""
    shell, child = family
    assert processes._children_by_scan(shell) == [child]
    assert sorted(processes._children_by_scan(os.getpid())) == sorted(processes.own_children())


def test_markers(family: tuple[int, int]) -> None:
    assert sorted(processes.marked_processes(b"FAMILY", _OURS.encode())) == sorted(family)
    assert processes.environment_value(family[1], b"FAMILY") == _OURS.encode()
    assert processes.environment_value(family[1], b"FAMIL") is None


def test_a_process_with_another_parent_than_seen_is_left_alone(family: tuple[int, int]) -> None:
    _, child = family
    assert processes.signal_processes({child: 1}, signal.SIGKILL) == 0
    stat = processes.read_stat(child)
    assert stat is not None
    assert stat.state != "Z"


def test_what_is_gone_is_no_error() -> None:
    ended = subprocess.Popen(["/bin/true"])
    assert ended.wait() == 0
    assert processes.read_stat(ended.pid) is None
    assert processes.children_of(ended.pid) == []
    assert processes.trees_of([ended.pid]) == {}
    assert processes.environment_value(ended.pid, b"PATH") is None
    assert processes.signal_processes({ended.pid: os.getpid()}, signal.SIGKILL) == 0


def test_a_command_may_be_called_anything() -> None:
    script = f"printf '{NAME}' > /proc/$$/comm; cat /proc/$$/comm; read line"
    with subprocess.Popen(
        ["/bin/sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().decode().strip() == NAME[:15]
        stat = processes.read_stat(process.pid)
        assert stat is not None
        assert stat.parent == os.getpid()


def test_a_process_in_the_middle_of_an_exec_is_found() -> None:
    """It shows an empty environment for that moment. One that does nothing but exec shows it
    often enough to be met in this many looks."""
    script = 'exec /bin/sh -c "$0" "$0"'
    process = subprocess.Popen(["/bin/sh", "-c", script, script], env={"FAMILY": "ever anew"})
    try:
        looks = [processes.environment_value(process.pid, b"FAMILY") for _ in range(3_000)]
        # The first looks may come before it has begun as what it is.
        begun = looks.index(b"ever anew")
        assert set(looks[begun:]) == {b"ever anew"}
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    "look",
    [
        processes.read_stat,
        processes.children_of,
        lambda _pid: processes.own_children(),
        lambda pid: processes.environment_value(pid, b"FAMILY"),
        lambda pid: processes.signal_processes({pid: os.getpid()}, signal.SIGCONT),
    ],
    ids=["stat", "children", "own children", "environment", "signal"],
)
def test_without_a_descriptor_nobody_counts_as_gone(
    family: tuple[int, int], look: Callable[[int], object]
) -> None:
    with no_descriptor_left(), pytest.raises(OSError) as raised:
        look(family[0])
    assert raised.value.errno == errno.EMFILE


def test_a_tree_is_killed_children_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child whose parent is dead has another one than it was seen with."""
    send = signal.pidfd_send_signal

    def send_and_see_it_dead(handle: int, number: int) -> None:
        send(handle, number)
        if number == signal.SIGKILL:
            assert select.select([handle], [], [], 10)[0]

    monkeypatch.setattr(signal, "pidfd_send_signal", send_and_see_it_dead)
    with subprocess.Popen(
        ["/bin/sh", "-c", "sleep 1000 >/dev/null & echo $!; wait"], stdout=subprocess.PIPE
    ) as shell:
        assert shell.stdout is not None
        child = os.pidfd_open(int(shell.stdout.readline()))
        try:
            assert processes.kill_trees([shell.pid]) == 2
            assert select.select([child], [], [], 10)[0]
        finally:
            with contextlib.suppress(ProcessLookupError):
                send(child, signal.SIGKILL)
            os.close(child)
