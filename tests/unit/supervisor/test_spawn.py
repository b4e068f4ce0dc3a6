"""Whose fault it is that a command didn't start."""

from __future__ import annotations

import errno
import os
import pwd
import select
from pathlib import Path
from typing import NoReturn

import pytest

from etcsched.agent.supervisor import descriptors, spawn
from etcsched.agent.supervisor.messages import Start

PATIENCE_S = 20.0


@pytest.mark.parametrize("may_hang", [False, True])
@pytest.mark.parametrize(("number", "is_the_hosts"), [(errno.EAGAIN, True), (errno.EACCES, False)])
def test_what_the_host_lacks_is_no_fault_of_the_commands(
    number: int, is_the_hosts: bool, may_hang: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a file system may hang, the command is begun in a child, which tells it by a pipe."""

    def fails(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_spawn", fails)
    monkeypatch.setattr(os, "execve", fails)
    start = Start(
        attempt_id="x", argv=("/bin/true",), env={}, cwd="/", output_path="", output_cap_bytes=1,
        kill_grace_s=1.0, deadline_mono_s=1e12,
    )  # fmt: skip
    spawner = spawn.Spawner("i", 5.0, descriptors.limits())
    monkeypatch.setattr(spawner._mounts, "may_hang", lambda: may_hang)
    output = os.open(tmp_path / "output", os.O_CREAT | os.O_WRONLY)
    if not may_hang:
        with pytest.raises(spawn.CannotStart) as told:
            spawner.spawn(start, output)
        assert isinstance(told.value, spawn.NotHere) is is_the_hosts
        return
    begun = spawner.spawn(start, output)
    assert isinstance(begun, spawn.Beginning)
    select.select([begun.report_fd], [], [], PATIENCE_S)
    begun.look()
    os.waitpid(begun.pid, 0)
    assert (begun.fault is spawn.Fault.HOST) is is_the_hosts
    assert begun.failure is not None
    assert begun.failure.endswith("/bin/true")


def test_another_name_of_root_is_no_way_around_the_agents_policy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Policies go by names: what is allowed to everyone but root must not be root's."""
    root = pwd.getpwuid(0)
    toor = pwd.struct_passwd(("toor", *root[1:]))
    monkeypatch.setattr(pwd, "getpwnam", {"root": root, "toor": toor}.__getitem__)
    with pytest.raises(spawn.NotAsThatUser, match=r"'toor' is another name of root .*uid 0"):
        spawn._account_needed("toor", {})
    if os.geteuid() == 0:
        assert spawn._account_needed("root", {}) is not None
