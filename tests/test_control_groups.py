"""Control groups as real files: their memberships, their mounts, and their limits, of both versions."""

import math
import os
from pathlib import Path

import pytest
import torch

from tuner import control_groups, hardware
from tuner.control_groups import cpu_quota, memory_limit

GIB = 2**30


class Machine:
    """The files by which Linux tells a process of its control groups."""

    def __init__(self, folder: Path) -> None:
        self.membership, self.mounts = folder / "cgroup", folder / "mountinfo"
        self._folder = folder
        self.membership.write_text("")
        self.mounts.write_text("22 1 0:21 / /proc rw,nosuid - proc proc rw\n")

    def mount(self, point: str, *, root: str = "/", controllers: str = "") -> None:
        kind, options = ("cgroup", f"rw,{controllers}") if controllers else ("cgroup2", "rw,nsdelegate")
        escaped = str(self._folder / point).replace(" ", "\\040")
        line = f"31 23 0:28 {root} {escaped} rw,relatime shared:9 - {kind} {kind} {options}\n"
        self.mounts.write_text(self.mounts.read_text() + line)

    def join(self, line: str) -> None:
        self.membership.write_text(f"{self.membership.read_text()}{line}\n")

    def write(self, name: str, text: str) -> None:
        file = self._folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    @property
    def quota(self) -> float | None:
        return cpu_quota(membership=self.membership, mounts=self.mounts)

    @property
    def limit(self) -> int | None:
        return memory_limit(membership=self.membership, mounts=self.mounts)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def second_version(machine: Machine, path: str, *, root: str = "/") -> None:
    machine.mount("fs", root=root)
    machine.join(f"0::{path}")


@pytest.mark.parametrize(
    ("text", "quota"),
    [("50000 100000", 0.5), ("150000 100000", 1.5), ("max 100000", None), ("", None), ("200000", None), ("5 0", None)],
)
def test_a_quota_of_version_2_is_its_time_over_its_period(machine: Machine, text: str, quota: float | None) -> None:
    second_version(machine, "/")
    machine.write("fs/cpu.max", text)
    assert machine.quota == quota


@pytest.mark.parametrize(("time", "quota"), [("50000", 0.5), ("-1", None), ("0", None), ("", None)])
def test_a_quota_of_version_1_is_its_time_over_its_period(machine: Machine, time: str, quota: float | None) -> None:
    machine.mount("fs/cpu,cpuacct", controllers="cpu,cpuacct")
    machine.join("4:cpu,cpuacct:/box")
    machine.write("fs/cpu,cpuacct/box/cpu.cfs_quota_us", time)
    machine.write("fs/cpu,cpuacct/box/cpu.cfs_period_us", "100000")
    assert machine.quota == quota


@pytest.mark.parametrize("smallest", ["", "/slice", "/slice/service"])
def test_the_smallest_limit_of_nested_groups_counts(machine: Machine, smallest: str) -> None:
    second_version(machine, "/slice/service")
    for group in ("", "/slice", "/slice/service"):
        machine.write(f"fs{group}/memory.max", str(GIB if group == smallest else 4 * GIB))
        machine.write(f"fs{group}/cpu.max", "50000 100000" if group == smallest else "400000 100000")
    assert (machine.limit, machine.quota) == (GIB, 0.5)


def test_a_memory_limit_of_version_1_is_followed(machine: Machine) -> None:
    machine.mount("fs/memory", controllers="memory")
    machine.join("4:memory:/box/inner")
    machine.write("fs/memory/box/inner/memory.limit_in_bytes", "9223372036854771712")  # what version 1 has for none
    machine.write("fs/memory/box/memory.limit_in_bytes", str(GIB))
    assert machine.limit == GIB


def test_limits_of_both_versions_side_by_side_are_all_followed(machine: Machine) -> None:
    second_version(machine, "/")
    machine.mount("fs/cpu", controllers="cpu")
    machine.join("1:cpu:/")
    machine.write("fs/cpu.max", "300000 100000")
    machine.write("fs/cpu/cpu.cfs_quota_us", "200000")
    machine.write("fs/cpu/cpu.cfs_period_us", "100000")
    assert machine.quota == 2.0


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/docker/0a1b", "/docker/0a1b"),  # a container whose mount is its own group
        ("/docker/0a1b", "/"),  # the host's path, of which the container sees nothing
        ("/../..", "/"),  # a group above the control-group namespace
        ("/../other", "/../.."),
        ("/elsewhere", "/docker/0a1b"),
    ],
)
def test_a_group_that_is_not_visible_has_the_limits_of_the_mount(machine: Machine, path: str, root: str) -> None:
    second_version(machine, path, root=root)
    machine.write("fs/cpu.max", "50000 100000")
    machine.write("fs/memory.max", str(GIB))
    assert (machine.quota, machine.limit) == (0.5, GIB)


def test_a_group_below_the_mounts_root_is_found(machine: Machine) -> None:
    second_version(machine, "/docker/0a1b/inner", root="/docker/0a1b")
    machine.write("fs/inner/cpu.max", "50000 100000")
    assert machine.quota == 0.5


def test_a_mount_point_with_a_space_is_found(machine: Machine) -> None:
    machine.mount("file systems")
    machine.join("0::/")
    machine.write("file systems/cpu.max", "50000 100000")
    assert machine.quota == 0.5


def test_a_system_without_control_groups_has_no_limits(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert cpu_quota(membership=gone, mounts=gone) is None
    assert memory_limit(membership=gone, mounts=gone) is None


@pytest.mark.parametrize("quota", [0.25, 1.0, 1.5, 10_000.0])
def test_cores_and_memory_are_those_of_the_container(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, quota: float
) -> None:
    cores_of_the_machine = hardware.num_cores()
    second_version(machine, "/box")
    machine.write("fs/cpu.max", f"{int(quota * 100_000)} 100000")
    machine.write("fs/box/memory.max", str(GIB))
    for read in (cpu_quota, memory_limit):
        monkeypatch.setitem(read.__kwdefaults__, "membership", machine.membership)
        monkeypatch.setitem(read.__kwdefaults__, "mounts", machine.mounts)
    assert hardware.num_cores() == min(cores_of_the_machine, math.ceil(quota))
    assert hardware.memory_bytes(torch.device("cpu")) == GIB


def test_a_command_takes_no_more_threads_than_it_has_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    monkeypatch.setattr(control_groups, "cpu_quota", lambda: 0.5)
    hardware.limit_threads()
    assert torch.get_num_threads() == 1


def test_images_are_decoded_by_as_many_threads_as_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    from threading import current_thread

    from tuner.data.threads import map_in_threads

    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(control_groups, "cpu_quota", lambda: 0.5)
    names = map_in_threads(lambda _: current_thread().name, range(512), what="", report=None)
    assert len(set(names)) == 1
