from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.measurements import measurement_of
from tuner.errors import DeviceError
from tuner.hardware import cpu_flags
from tuner.training import engine_measurement, measurement_cache
from tuner.training.engine import Engine
from tuner.training.engine_choices import ChoiceVerdict, Measurement
from tuner.training.engine_measurement import load_or_measure
from tuner.training.measurement_cache import keep_measurement, load_measurement

SHAPE = (1, 8, 8)
CPU = torch.device("cpu")


def measurement(device: torch.device = CPU, **taken: object) -> Measurement:
    """As of a machine on which only these choices pay."""
    engine = replace(Engine(str(device)), **taken)  # type: ignore[arg-type]
    return measurement_of(engine, kind=measurement_cache.device_kind(device))


def test_a_measurement_is_made_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_or_measure(CPU, SHAPE, num_threads=1, cache_dir=tmp_path)
    assert [type(verdict) for verdict in first.verdicts] == [ChoiceVerdict] * len(first.verdicts)
    monkeypatch.setattr(engine_measurement, "measure_engine", lambda *_, **__: pytest.fail("measured again"))
    assert load_or_measure(CPU, SHAPE, num_threads=1, cache_dir=tmp_path) == first


def test_what_doctor_keeps_is_what_a_study_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = measurement(channels_last=True, blocks="fused")
    keep_measurement(measured, SHAPE, cache_dir=tmp_path)
    monkeypatch.setattr(engine_measurement, "measure_engine", None)
    assert load_or_measure(CPU, SHAPE, num_threads=1, cache_dir=tmp_path) == measured


@pytest.mark.parametrize(
    ("what", "value"), [("num_cores", 3000), ("cpu_flags", "fpu amx_bf16"), ("device_kind", "another processor")]
)
def test_a_measurement_is_not_that_of_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, value: object
) -> None:
    keep_measurement(measurement(), SHAPE, cache_dir=tmp_path)
    assert load_measurement(CPU, SHAPE, num_threads=1, cache_dir=tmp_path) == measurement()
    monkeypatch.setattr(measurement_cache, what, lambda *_: value)
    assert load_measurement(CPU, SHAPE, num_threads=1, cache_dir=tmp_path) is None
    keep_measurement(measurement(), SHAPE, cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_processor_is_known_by_its_instructions() -> None:
    assert cpu_flags()
    if Path("/proc/cpuinfo").is_file():
        assert f": {cpu_flags()}\n" in Path("/proc/cpuinfo").read_text()


@pytest.mark.parametrize("damaged", ["", '{"engine": {"dev', "[]", "null", "[" * 200_000, '"\\ud800"', b"\xff\xfe"])
def test_a_kept_measurement_that_cannot_be_read_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: str | bytes
) -> None:
    path = keep_measurement(measurement(), SHAPE, cache_dir=tmp_path)
    path.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    measured = measurement(channels_last=True)
    monkeypatch.setattr(engine_measurement, "measure_engine", lambda *_, **__: measured)
    assert load_or_measure(CPU, SHAPE, num_threads=1, cache_dir=tmp_path) == measured
    assert load_measurement(CPU, SHAPE, num_threads=1, cache_dir=tmp_path) == measured


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("engine.precision", "fp8"),
        ("engine.channels_last", 0),
        ("engine.num_threads", "two"),
        ("engine.num_threads", 2),
        ("engine.tf32", True),
        ("engine.device", "cuda"),
        ("engine.device", None),
        ("engine.speed", 9),
        ("runners.count", 0),
        ("runners.count", True),
        ("runners.num_threads", 1.5),
        ("runners.why", None),
        ("kind", "another processor"),
        ("problem", None),
        ("verdicts", []),
        ("verdicts.0.name", "graph"),
        ("verdicts.0.is_taken", True),
        ("verdicts.0.seconds_plain", "1 ms"),
        ("verdicts.0.seconds_fast", float("nan")),
    ],
)
def test_a_kept_measurement_with_what_cannot_be_is_not_used(tmp_path: Path, place: str, value: object) -> None:
    path = keep_measurement(measurement(), SHAPE, cache_dir=tmp_path)
    data: Any = json.loads(path.read_text())
    *way, last = place.split(".")
    part = data
    for step in way:
        part = part[int(step) if step.isdecimal() else step]
    part[last] = value
    path.write_text(json.dumps(data))
    assert load_measurement(CPU, SHAPE, num_threads=1, cache_dir=tmp_path) is None


def test_a_measurement_that_cannot_be_kept_is_used_all_the_same_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(engine_measurement, "measure_engine", lambda *_, **__: measurement(channels_last=True))
    measured = load_or_measure(CPU, SHAPE, num_threads=1, cache_dir=tmp_path / "file" / "cache")
    assert measured.engine == Engine(channels_last=True)
    assert measured.not_kept == (
        f"{tmp_path / 'file' / 'cache'}: cannot be written: Not a directory: this machine will be measured again next "
        "time; set TUNER_CACHE_DIR to a folder that can be written"
    )
    with pytest.raises(DeviceError, match="set TUNER_CACHE_DIR"):
        keep_measurement(measured, SHAPE, cache_dir=tmp_path / "file")


GPUS = [torch.device("cuda", index) for index in range(3)]


def test_gpus_of_one_kind_share_a_measurement_and_each_has_its_own_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = dict(zip(GPUS, ("large", "small", "large"), strict=True))
    measured = []

    def measure_one(device: torch.device, *_: object, **__: object) -> Measurement:
        measured.append(device)
        return measurement(device, tf32=kinds[device] == "large")

    monkeypatch.setattr(measurement_cache, "device_kind", kinds.__getitem__)
    monkeypatch.setattr(engine_measurement, "measure_engine", measure_one)
    for _ in range(2):
        found = [load_or_measure(gpu, SHAPE, num_threads=1, cache_dir=tmp_path) for gpu in GPUS]
        assert [(one.kind, one.engine.device, one.engine.tf32) for one in found] == [
            ("large", "cuda:0", True),
            ("small", "cuda:1", False),
            ("large", "cuda:2", True),
        ]
    assert measured == GPUS[:2]
