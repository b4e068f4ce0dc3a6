"""Whether a file system is mounted here that may never answer.

By its kind alone, and by those known to live in the kernel and on local memory or disks: any other,
known or not (NFS, SMB, Ceph, FUSE, an automounter), has a server that may be gone.
"""

from __future__ import annotations

import os
import select

LOCAL_KINDS = frozenset(
    (
        *(b"ext2", b"ext3", b"ext4", b"xfs", b"btrfs", b"bcachefs", b"f2fs", b"jfs", b"zfs"),
        *(b"vfat", b"exfat", b"ntfs3", b"iso9660", b"udf", b"squashfs", b"erofs", b"overlay"),
        *(b"tmpfs", b"ramfs", b"rootfs", b"devtmpfs", b"devpts", b"mqueue", b"hugetlbfs"),
        *(b"proc", b"sysfs", b"cgroup", b"cgroup2", b"securityfs", b"selinuxfs", b"smackfs"),
        *(b"debugfs", b"tracefs", b"configfs", b"bpf", b"pstore", b"efivarfs", b"nsfs"),
        *(b"fusectl", b"binfmt_misc", b"rpc_pipefs", b"resctrl"),
    )
)
_SYSTEMD_MOUNTS_ON_DEMAND = b"/proc/sys/fs/binfmt_misc"
"""By an automounter, on most hosts; no place for programs."""


class Mounts:
    def __init__(self) -> None:
        self._poll = select.poll()
        self._may_hang = True
        try:
            self._fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return  # Never known, so they may.
        # The kernel says so, once, when something was mounted or unmounted.
        self._poll.register(self._fd, select.POLLPRI)
        self._may_hang = some_may_hang(self._read())

    def may_hang(self) -> bool:
        if self._poll.poll(0):
            self._may_hang = some_may_hang(self._read())
        return self._may_hang

    def _read(self) -> bytes:
        os.lseek(self._fd, 0, os.SEEK_SET)
        text = b""
        while chunk := os.read(self._fd, 65536):
            text += chunk
        return text


def some_may_hang(mountinfo: bytes) -> bool:
    for line in mountinfo.splitlines():
        before, _, after = line.partition(b" - ")
        kind = after.partition(b" ")[0]
        if kind == b"autofs" and before.split(b" ")[4:5] == [_SYSTEMD_MOUNTS_ON_DEMAND]:
            continue
        if kind not in LOCAL_KINDS:
            return True
    return False
