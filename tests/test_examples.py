"""The examples: each runs as its first line says, in a folder of its own."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tuner import RunOptions, load_study, open_storage, run_events, summarise
from tuner.search.events import EpochFinished

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


def run_example(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)


def module_of(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"examples_{Path(name).stem}", EXAMPLES / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Points:
    """Stands in for TensorBoard's writer, which is not installed with the development tools."""

    def __init__(self) -> None:
        self.by_tag: dict[str, dict[int, float]] = {}

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.by_tag.setdefault(tag, {})[global_step] = scalar_value


def test_every_example_is_run_here_and_guards_its_start() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == {"digits.py", "own_images.py", "events.py"}
    for name in names:
        text = (EXAMPLES / name).read_text(encoding="utf-8")
        assert f"`python examples/{name} [TRIALS]`" in text
        assert '\nif __name__ == "__main__":\n' in text


@pytest.mark.slow
def test_digits_is_ten_lines_and_prints_the_test_accuracy(tmp_path: Path) -> None:
    assert len((EXAMPLES / "digits.py").read_text(encoding="utf-8").splitlines()) == 10
    done = run_example("digits.py", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    match = re.fullmatch(r"([\d.]+)% on the test set; the checkpoint is (\S+)\n", done.stdout)
    assert match is not None, done.stdout
    assert float(match.group(1)) > 50
    assert (tmp_path / match.group(2)).is_file()


@pytest.mark.slow
def test_own_images_names_the_class_of_a_new_image(tmp_path: Path) -> None:
    done = run_example("own_images.py", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"new\.png is a (disc|square) with a probability of [\d.]+%\n", done.stdout), done.stdout
    assert len(list((tmp_path / "shapes" / "disc").glob("*.png"))) == 60


def test_events_says_in_one_line_that_tensorboard_is_missing(tmp_path: Path) -> None:
    (tmp_path / "tensorboard.py").write_text("raise ModuleNotFoundError('No module named tensorboard')")
    code = f"import runpy, sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv[:] = ['events.py', '1']; "
    code += f"runpy.run_path({str(EXAMPLES / 'events.py')!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == ("this example needs TensorBoard (No module named tensorboard): pip install tensorboard\n")
    assert done.stdout == ""
    assert not (tmp_path / "studies").exists()


def test_events_writes_a_curve_for_each_trial_and_the_best_score(tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    options = RunOptions(studies=studies, trials=2, epochs=2, workers=1, device="cpu", confirm="no")
    events = list(run_events(options))
    writer = Points()
    module_of("events.py").write_events(events, writer)
    finished = [event for event in events if isinstance(event, EpochFinished)]
    for number in {event.number for event in finished}:
        results = [event.result for event in finished if event.number == number]
        accuracies = {result.epoch: result.validation_accuracy for result in results}
        assert writer.by_tag[f"validation_accuracy/trial_{number}"] == accuracies
        assert writer.by_tag[f"train_loss/trial_{number}"] == {result.epoch: result.train_loss for result in results}
    best = summarise(load_study(open_storage(f"sqlite:///{studies / 'tuner.db'}")), studies=studies).best
    assert best is not None
    assert list(writer.by_tag["best_validation_accuracy"].values())[-1] == pytest.approx(best.validation_accuracy)
