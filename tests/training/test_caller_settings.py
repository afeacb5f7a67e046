"""A search in a process whose program has set torch otherwise: the same trials, and the program keeps its settings."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import tuner
from tuner.search.events import TrialEnded
from tuner.training.caller_settings import generates_with_own_settings

backends = torch.backends

SPACE = """
[network]
num_blocks = 1
[block]
out_channels = [4, 8]
dropout = 0.1
[recipe]
batch_size = 64
learning_rate = 3e-3
"""


def changed(read: Callable[[], Any], write: Callable[[Any], object], value: Any) -> AbstractContextManager[None]:
    @contextmanager
    def change() -> Iterator[None]:
        before = read()
        write(value)
        try:
            yield
        finally:
            write(before)

    return change()


def flag(place: Any, name: str, value: object) -> AbstractContextManager[None]:
    return changed(lambda: getattr(place, name), lambda value: setattr(place, name, value), value)


SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "default dtype": lambda: changed(torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "no gradients": lambda: torch.set_grad_enabled(False),
    "inference mode": torch.inference_mode,
    "default device": lambda: changed(lambda: None, torch.set_default_device, "meta"),
    "a device's block": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True, check_nan=False),
    "deterministic algorithms": lambda: changed(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True
    ),
    "matmul precision": lambda: changed(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"
    ),
    "precision of convolutions": lambda: flag(backends.mkldnn.conv, "fp32_precision", "bf16"),
    "precision of matmuls, by the newer interface": lambda: flag(backends.cuda.matmul, "fp32_precision", "tf32"),
    "no oneDNN": lambda: flag(backends.mkldnn, "enabled", False),
    "cuDNN's benchmark": lambda: flag(backends.cudnn, "benchmark", True),
    "threads": lambda: changed(torch.get_num_threads, torch.set_num_threads, 2),
    "denormals": lambda: changed(lambda: False, torch.set_flush_denormal, True),
    "random numbers": lambda: changed(torch.get_rng_state, torch.set_rng_state, torch.Generator().get_state()),
}


def settings() -> list[object]:
    """Everything that a program can set, read by torch's own functions."""
    with torch.device("cpu"):
        random_state = torch.get_rng_state().tolist()
    legacy: list[object] = []
    for read in (torch.get_float32_matmul_precision, lambda: backends.cuda.matmul.allow_tf32):
        try:
            legacy.append(read())
        except RuntimeError:
            legacy.append("set by the newer interface")
    return [
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_anomaly_enabled(),
        torch.is_anomaly_check_nan_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        backends.cuda.matmul.fp32_precision,
        backends.mkldnn.conv.fp32_precision,
        backends.mkldnn.matmul.fp32_precision,
        backends.cudnn.allow_tf32,
        backends.cudnn.benchmark,
        backends.mkldnn.enabled,
        torch.get_num_threads(),
        sys.float_info.min * 0.5,
        random_state,
        *legacy,
    ]


def search(folder: Path) -> tuple[list[tuple[Any, ...]], list[list[object]]]:
    """How the trials of a search ended, and the program's settings at each of its events."""
    folder.mkdir()
    (folder / "space.toml").write_text(SPACE)
    options = tuner.RunOptions(
        space=str(folder / "space.toml"), studies=folder, trials=2, epochs=1, workers=1, device="cpu", confirm="no"
    )
    ends, seen = [], []
    for event in tuner.run_events(options):
        seen.append(settings())
        if isinstance(event, TrialEnded):
            ends.append((event.outcome, event.validation_accuracy, event.reason))
        if len(ends) == 20:
            break
    return ends, seen


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    return search(tmp_path_factory.mktemp("plain") / "studies")[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_a_search_comes_out_the_same_whatever_its_program_has_set_and_the_program_keeps_that(
    plain: list[tuple[Any, ...]], tmp_path: Path, name: str
) -> None:
    with SETTINGS[name]():
        before = settings()
        ends, seen = search(tmp_path / "studies")
        after = settings()
    assert ends == plain
    assert [outcome for outcome, *_ in ends].count("complete") == 2
    assert all(one == before for one in seen)
    assert after == before


def test_what_a_generator_sets_for_itself_is_there_at_its_next_step_and_nowhere_else() -> None:
    @generates_with_own_settings
    def steps() -> Iterator[int]:
        try:
            torch.set_num_threads(3)
            torch.set_flush_denormal(True)
            backends.cuda.matmul.allow_tf32 = True
            torch.manual_seed(7)
            drawn = torch.rand(1)
            torch.manual_seed(7)
            yield 1
            assert torch.get_num_threads() == 3
            assert sys.float_info.min * 0.5 == 0.0
            assert backends.cuda.matmul.allow_tf32
            assert torch.rand(1) == drawn
            yield 2
        finally:
            closed.append(torch.get_num_threads())

    closed: list[int] = []
    before = settings()
    running = steps()
    for _ in range(2):
        next(running)
        assert settings() == before
        torch.rand(1)
        before = settings()
    running.close()
    assert closed == [3]
    assert settings() == before


def test_an_error_gives_the_program_its_settings_back() -> None:
    with SETTINGS["default dtype"](), torch.no_grad():
        before = settings()
        with pytest.raises(tuner.TunerError):
            tuner.run(tuner.RunOptions(dataset="nothing", workers=1))
        assert settings() == before


def test_a_model_is_loaded_in_fp32_whatever_the_default_dtype(tmp_path: Path) -> None:
    search(tmp_path / "studies")
    (study,) = (path for path in (tmp_path / "studies").iterdir() if path.is_dir() and not path.name.startswith("."))
    path = min(study.glob("trial-*.pt"))
    with SETTINGS["default dtype"](), torch.inference_mode():
        model = tuner.load_model(path)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert not any(weight.is_inference() for weight in model.parameters())
