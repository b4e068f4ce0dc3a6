"""Which mounts may hang; the lines are the kernel's (proc(5))."""

from __future__ import annotations

import pytest

from etcsched.agent.supervisor.mounts import some_may_hang

LOCAL = (
    b"22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
    b"23 22 0:21 / /proc rw,nosuid shared:12 - proc proc rw\n"
    b"31 23 0:27 / /proc/sys/fs/binfmt_misc rw shared:16 - autofs systemd-1 rw,fd=29,direct\n"
)


@pytest.mark.parametrize(
    ("line", "hangs"),
    [
        (b"", False),
        (b"40 22 0:40 / /data\\040x rw shared:20 master:3 - nfs4 server:/export rw,hard\n", True),
        (b"40 22 0:40 / /mnt rw - fuse.sshfs a@b:/ rw\n", True),
        (b"40 22 0:40 / /home rw - autofs /etc/auto.home rw,fd=6\n", True),
        (b"40 22 0:40 / /x rw - not-known-to-us none rw\n", True),
        (b"40 22 0:40 / /tmp rw - tmpfs tmpfs rw\n", False),
    ],
)
def test_only_kinds_known_to_be_local_never_hang(line: bytes, hangs: bool) -> None:
    assert some_may_hang(LOCAL + line) is hangs
