"""Several devices in one machine: each kind is measured once, and every runner has the engine of its own device.

The devices are GPUs by name alone: nothing is computed on them.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rehearsal import SETTINGS

from tuner.data.development_part import DataSpec, load_development
from tuner.data.splits import split_development
from tuner.errors import DeviceError, StudyError, UnfitDevice
from tuner.hardware import GPU_CONTEXT_BYTES
from tuner.search import devices, study_runners
from tuner.search.devices import (
    MeasuredDevices,
    engine_notes,
    measure_devices,
    refuse_other_engine,
    share_out,
    stored_engines,
    study_engine,
    study_engines,
)
from tuner.search.record import StudyRecord
from tuner.search.storage import open_storage
from tuner.search.study_lookup import open_study
from tuner.search.study_runners import (
    SCORING_BYTES_GPU,
    RunnerPlaces,
    StudyRunners,
    memory_for_runners,
    prepare_runners,
)
from tuner.training.engine import Engine
from tuner.training.engine_choices import Measurement, Runners
from tuner.training.engine_option import NOTHING_FORCED, Forced

CPU = torch.device("cpu")
GPUS = [torch.device("cuda", index) for index in range(3)]
SHAPE = (1, 8, 8)
LARGE, SMALL = (
    "Large (80 GiB, 132 multiprocessors, compute capability 9.0)",
    "Small (8 GiB, 20 multiprocessors, compute capability 7.5)",
)
OF_LARGE = Engine(tf32=True, precision="bf16", graph=True, optimizer="fused", seeds_together=True)
OF_SMALL = Engine(channels_last=True, seeds_together=True)


def measurement(device: torch.device, kind: str, engine: Engine, *, runners: int = 2) -> Measurement:
    return Measurement(replace(engine, device=str(device)), (), Runners(runners, 1, "as measured"), kind)


def two_kinds(**engines: Engine) -> MeasuredDevices:
    """Two large GPUs, and a small one between them."""
    large, small = engines.get("large", OF_LARGE), engines.get("small", OF_SMALL)
    return MeasuredDevices(
        {
            GPUS[0]: measurement(GPUS[0], LARGE, large, runners=3),
            GPUS[1]: measurement(GPUS[1], SMALL, small, runners=1),
            GPUS[2]: measurement(GPUS[2], LARGE, large, runners=3),
        }
    )


def record_in(folder: Path, engine: Engine) -> StudyRecord:
    """The study of a folder, begun with an engine or gone on with."""
    storage = open_storage(f"sqlite:///{(folder / 'tuner.db').as_posix()}")
    return open_study(storage, "several", SETTINGS, engine=engine)


@pytest.mark.parametrize(
    ("workers", "places"),
    [
        (None, [0, 1, 2, 0, 2, 0, 2]),
        (1, [0]),
        (2, [0, 1]),
        (3, [0, 1, 2]),
        (5, [0, 1, 2, 0, 1]),
    ],
)
def test_devices_take_turns_until_each_has_the_runners_that_it_bears_or_all_have_those_asked_for(
    workers: int | None, places: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "num_cores", lambda: 16)
    assert share_out(two_kinds(), workers=workers) == tuple(GPUS[place] for place in places)


@pytest.mark.parametrize(("cores", "num_runners"), [(1, 3), (4, 4), (7, 7), (64, 7)])
def test_by_themselves_runners_are_no_more_than_cores_and_one_for_each_device(
    cores: int, num_runners: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "num_cores", lambda: cores)
    assert len(share_out(two_kinds(), workers=None)) == num_runners
    assert len(share_out(two_kinds(), workers=20)) == 20


def test_every_gpu_computes_as_was_measured_for_its_kind(tmp_path: Path) -> None:
    record = record_in(tmp_path, replace(OF_LARGE, device="cuda", num_threads=2))
    engines = study_engines(record, two_kinds())
    assert engines == {
        GPUS[0]: replace(OF_LARGE, device="cuda:0", num_threads=2),
        GPUS[1]: replace(OF_SMALL, device="cuda:1", num_threads=2),
        GPUS[2]: replace(OF_LARGE, device="cuda:2", num_threads=2),
    }
    assert stored_engines(record).keys() == {LARGE, SMALL}


def test_a_study_that_is_gone_on_with_keeps_the_engine_of_each_kind_and_takes_up_a_new_kind(tmp_path: Path) -> None:
    record = record_in(tmp_path, replace(OF_LARGE, device="cuda"))
    measured = two_kinds()
    begun = study_engines(record, MeasuredDevices({GPUS[0]: measured.by_device[GPUS[0]]}))
    assert stored_engines(record).keys() == {LARGE}
    again = record_in(tmp_path, Engine("cuda"))
    later = study_engines(again, two_kinds(large=Engine()))
    assert later[GPUS[0]] == begun[GPUS[0]]
    assert later[GPUS[2]] == replace(begun[GPUS[0]], device="cuda:2")
    assert later[GPUS[1]] == replace(OF_SMALL, device="cuda:1")
    assert stored_engines(again).keys() == {LARGE, SMALL}


def test_a_study_on_a_cpu_keeps_its_engine_on_any_cpu(tmp_path: Path) -> None:
    record = record_in(tmp_path, Engine("cpu", precision="bf16"))
    measured = MeasuredDevices({CPU: measurement(CPU, "another make", Engine())})
    assert study_engines(record, measured) == {CPU: Engine("cpu", precision="bf16")}
    assert study_engine(record, CPU, SHAPE) == Engine("cpu", precision="bf16")
    assert stored_engines(record) == {}


def test_a_trial_that_is_trained_again_computes_as_the_study_has_it_for_that_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {GPUS[0]: LARGE, GPUS[1]: SMALL, GPUS[2]: "Third"}
    measured = {GPUS[2]: measurement(GPUS[2], "Third", Engine(tf32=True))}
    monkeypatch.setattr(devices, "device_kind", kinds.__getitem__)
    monkeypatch.setattr(devices, "load_or_measure", lambda device, *_, **__: measured[device])
    record = record_in(tmp_path, replace(OF_LARGE, device="cuda"))
    study_engines(record, two_kinds())
    assert [study_engine(record, gpu, SHAPE) for gpu in GPUS] == [
        replace(OF_LARGE, device="cuda:0"),
        replace(OF_SMALL, device="cuda:1"),
        Engine("cuda:2", tf32=True),
    ]
    assert stored_engines(record).keys() == {LARGE, SMALL}


def test_another_engine_than_a_study_has_for_a_kind_is_refused_and_any_is_taken_for_a_new_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "device_kind", {GPUS[0]: LARGE, GPUS[1]: SMALL, GPUS[2]: "Third"}.__getitem__)
    record = record_in(tmp_path, replace(OF_LARGE, device="cuda"))
    study_engines(record, two_kinds())
    forced = Forced({"graph": True})
    refuse_other_engine(record, [GPUS[0], GPUS[2]], forced=forced)
    with pytest.raises(StudyError, match="'several' was started with another engine than --engine graph=on, and"):
        refuse_other_engine(record, GPUS, forced=forced)
    refuse_other_engine(record, GPUS, forced=NOTHING_FORCED)


def measuring(monkeypatch: pytest.MonkeyPatch, unfit: Mapping[torch.device, str]) -> None:
    def measured(device: torch.device, *_: object, **__: object) -> Measurement:
        if device in unfit:
            raise UnfitDevice(f"{device} (Old) cannot compute a training step: {unfit[device]}")
        return two_kinds().by_device[device]

    monkeypatch.setattr(devices, "load_or_measure", measured)


def test_of_several_gpus_one_that_cannot_train_is_left_out_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, {GPUS[0]: "no kernel image is available"})
    measured = measure_devices(GPUS, SHAPE, workers=None)
    assert list(measured.by_device) == GPUS[1:]
    assert measured.first.kind == SMALL
    assert measured.left_out == ("not used: cuda:0 (Old) cannot compute a training step: no kernel image is available",)
    assert share_out(measured, workers=2) == (GPUS[1], GPUS[2])


def test_where_no_gpu_can_train_that_is_the_users_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    measuring(monkeypatch, dict.fromkeys(GPUS, "no kernel image is available"))
    with pytest.raises(DeviceError, match=r"^cuda:0 \(Old\) .* no kernel image .*; give another --device$"):
        measure_devices(GPUS, SHAPE, workers=None)


def test_a_log_has_a_line_for_each_kind_and_none_says_its_name_where_there_is_but_one(tmp_path: Path) -> None:
    record = record_in(tmp_path, replace(OF_LARGE, device="cuda"))
    measured = replace(two_kinds(), left_out=("not used: cuda:3",))
    alone = MeasuredDevices({GPUS[0]: measured.by_device[GPUS[0]]})
    assert engine_notes(study_engines(record, alone), alone) == ("engine: the plain step",)
    assert engine_notes(study_engines(record, measured), measured) == (
        f"{LARGE}: engine: the plain step",
        f"{SMALL}: engine: the plain step",
        "not used: cuda:3",
    )
    not_kept = {device: replace(one, not_kept="/cache: full") for device, one in measured.by_device.items()}
    assert MeasuredDevices(not_kept, ("not used: cuda:3",)).notes == ("not used: cuda:3", "/cache: full")
    later = two_kinds(small=Engine())
    assert engine_notes(study_engines(record, later), later) == (
        f"{LARGE}: engine: the plain step",
        f"{SMALL}: engine: as stored in the study",
    )


def runners_on_three_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: MeasuredDevices, *, workers: int | None
) -> StudyRunners:
    """The real trainers of digits, on GPUs of 80, 8 and 80 GiB of which a tenth is in use."""
    memory = {GPUS[0]: 80 * 2**30, GPUS[1]: 8 * 2**30, GPUS[2]: 80 * 2**30}
    monkeypatch.setattr(study_runners, "memory_bytes", memory.__getitem__)
    monkeypatch.setattr(study_runners, "memory_for_images", lambda device: memory[device] * 9 // 10)
    monkeypatch.setattr(devices, "num_cores", lambda: 16)
    dataset = load_development(DataSpec("digits", tmp_path / "data", tmp_path / "cache"))
    record = record_in(tmp_path, replace(measured.first.engine, device="cuda"))
    devices_of_runners = share_out(measured, workers=workers)
    places = RunnerPlaces(measured, devices_of_runners, memory_for_runners(devices_of_runners))
    return prepare_runners(record, dataset, split_development(dataset, seed=0), tmp_path / "several", places=places)


def test_every_runner_trains_with_the_engine_of_its_own_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runners = runners_on_three_gpus(tmp_path, monkeypatch, two_kinds(), workers=4)
    engines = [trainer.engine for trainer in runners.trainers]
    assert [engine.device for engine in engines] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]
    assert [engine.graph for engine in engines] == [True, False, True, True]
    assert [engine.channels_last for engine in engines] == [False, True, False, False]
    assert runners.device == GPUS[0]


def test_what_a_runner_may_take_is_what_the_one_with_the_least_memory_bears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = runners_on_three_gpus(tmp_path / "1", monkeypatch, two_kinds(), workers=1)
    beside = GPU_CONTEXT_BYTES + SCORING_BYTES_GPU
    assert alone.step_bytes == (80 * 2**30 - beside) / 2
    assert alone.image_bytes == 72 * 2**30
    runners = runners_on_three_gpus(tmp_path / "2", monkeypatch, two_kinds(), workers=5)
    assert runners.step_bytes == (8 * 2**30 - 2 * beside) / 4
    assert {trainer.image_bytes for trainer in runners.trainers} == {8 * 2**30 * 9 // 10 // 2}


@pytest.mark.parametrize(("small", "is_together"), [(OF_SMALL, True), (Engine(), False)])
def test_seeds_train_together_where_every_device_does_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Engine, is_together: bool
) -> None:
    runners = runners_on_three_gpus(tmp_path, monkeypatch, two_kinds(small=small), workers=3)
    assert runners.together_bytes == (runners.step_bytes if is_together else 0.0)
