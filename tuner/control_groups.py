"""Limits that Linux control groups (versions 1 and 2) set on this process: its CPU quota and its memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MEMBERSHIP, MOUNTS = Path("/proc/self/cgroup"), Path("/proc/self/mountinfo")
"""Files that list the groups of this process, and the mounts of their file systems; they exist on Linux only."""


@dataclass(frozen=True)
class _Mount:
    """A control-group file system. root: the group that is mounted at `point`. controllers: empty for version 2."""

    root: PurePosixPath
    point: Path
    controllers: frozenset[str]


def cpu_quota(*, membership: Path = MEMBERSHIP, mounts: Path = MOUNTS) -> float | None:
    """CPU time that this process may use, in cores, such as 0.5; None without a quota.

    The result is the smallest quota of the process's own group and all groups above it. Sources: cpu.max in the
    kernel's cgroup-v2.rst; scheduler/sched-bwc.rst for version 1.
    """
    quotas = []
    for group, is_second in _groups("cpu", membership=membership, mounts=mounts):
        if is_second:
            quota, period = [*_words(group / "cpu.max"), "", ""][:2]
        else:
            quota, period = ("".join(_words(group / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
        if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory_limit(*, membership: Path = MEMBERSHIP, mounts: Path = MOUNTS) -> int | None:
    """Bytes of memory that this process may use; None without a limit.

    The result is the smallest limit of the process's own group and all groups above it. Version 1 always has a limit,
    which may be larger than any machine's memory.
    """
    limits = []
    for group, is_second in _groups("memory", membership=membership, mounts=mounts):
        limit = "".join(_words(group / ("memory.max" if is_second else "memory.limit_in_bytes")))
        if limit.isdecimal():
            limits.append(int(limit))
    return min(limits, default=None)


def _groups(controller: str, *, membership: Path, mounts: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the folders of the process's groups up to the root of each mount, and whether each is of version 2."""
    paths = dict(_memberships(membership))
    for mount in _mounts(mounts):
        is_second = not mount.controllers
        path = paths.get("" if is_second else controller)
        if path is None or not (is_second or controller in mount.controllers):
            continue
        folder = mount.point / _below(mount.root, path)
        for group in (folder, *folder.parents):
            yield group, is_second
            if group == mount.point:
                break


def _below(root: PurePosixPath, path: PurePosixPath) -> PurePosixPath:
    """Return the path of a group within a mount of `root`; the mount itself if the group is not visible in it.

    In a container, the path may be the group's path on the host or, from another namespace, start with `/../..`.
    """
    if ".." in path.parts or not path.is_relative_to(root):
        return PurePosixPath()
    return path.relative_to(root)


def _memberships(file: Path) -> Iterator[tuple[str, PurePosixPath]]:
    """Yield the group of each controller; version 2 has an empty name. Source: cgroups(7), /proc/pid/cgroup."""
    for line in _lines(file):
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                yield controller, PurePosixPath(parts[2])


def _mounts(file: Path) -> Iterator[_Mount]:
    """Yield the mounted control-group file systems. Source: proc_pid_mountinfo(5)."""
    for line in _lines(file):
        before, separator, after = line.partition(" - ")
        fields, (kind, *rest) = before.split(), after.split() or [""]
        if separator and len(fields) >= 5 and kind in ("cgroup", "cgroup2"):
            controllers = frozenset(rest[-1].split(",")) if kind == "cgroup" and rest else frozenset[str]()
            yield _Mount(PurePosixPath(_unescaped(fields[3])), Path(_unescaped(fields[4])), controllers)


def _unescaped(text: str) -> str:
    """Decode a path in mountinfo, which writes spaces, tabs, line ends and backslashes as octal escapes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # no such group, no such controller in it, or not Linux: nothing limits
        return []
