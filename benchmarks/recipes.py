"""What each addition to a recipe is worth: ResNet-8 with a base recipe and with each addition, over several seeds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.subset import choose_rows
from tuner.architecture.any_architecture import as_traced
from tuner.architecture.factory import build_model
from tuner.architecture.flip_test import FlipTest
from tuner.data.dataset import DataSpec
from tuner.data.development_part import load_development
from tuner.data.resident import ResidentData, load_resident
from tuner.data.splits import Split
from tuner.deliver.intervals import RaceRow, accuracy_interval, difference_interval, spread_in_race
from tuner.errors import RunnerError
from tuner.hardware import device_name
from tuner.search.study_runners import input_spec_of
from tuner.space.automatic_flip import decide_flip
from tuner.space.sampling import candidate_from, first_params
from tuner.space.toml_file import load_space
from tuner.training.candidate import Candidate, Recipe, resolve_candidate
from tuner.training.device import choose_device
from tuner.training.engine import Engine
from tuner.training.engine_measurement import load_or_measure
from tuner.training.engine_option import force, parse_forced
from tuner.training.loop import evaluate, train
from tuner.training.measurement_cache import machine_cache_dir
from tuner.training.process_settings import prepare_process
from tuner.training.results import Diverged

Say = Callable[[str], None]
BASE = "base"
RECIPE = Recipe(
    "sgd", learning_rate=0.1, schedule="cosine", batch_size=128, weight_decay=5e-4, momentum=0.9, label_smoothing=0.1
)
"""The base recipe: SGD with Nesterov momentum, a cosine schedule, L2 and label smoothing."""
ADDITIONS: Mapping[str, Mapping[str, Any]] = {
    BASE: {},
    "warm-up": {"warm_up": 0.1},
    "one-cycle": {"schedule": "one_cycle"},
    "sgdw": {"optimizer": "sgdw", "weight_decay": 5e-3},
    "ema": {"ema": 0.99},
    "adamw": {"optimizer": "adamw", "learning_rate": 5e-3, "weight_decay": 0.05},
    "muon": {"optimizer": "muon", "learning_rate": 1e-2, "weight_decay": 0.05},
    "class weights": {"class_weights": "balanced"},
}
"""What is changed in the base recipe, by the name of the row. The decay of sgdw is that of sgd / (1 - momentum)."""
FLIP_TEST = "flip test"
"""The row of the base recipe's networks, scored with the mean over each image and its mirror image."""


@dataclass(frozen=True)
class Row:
    """Trainings with one recipe: the seconds of each seed, and which validation images each classified correctly."""

    name: str
    recipe: Recipe
    seconds: list[float]
    correct_SN: NDArray[np.bool_]


def measure(
    data_dir: Path,
    *,
    dataset: str,
    num_images: int,
    epochs: int,
    num_seeds: int,
    names: Sequence[str],
    engine: str,
    say: Say,
) -> dict[str, Any]:
    """Train with the base recipe and each named addition, and return what the command prints.

    Raises TunerError for a data set or choices of an engine that cannot be used, and for a training that diverges.
    """
    device = choose_device("auto")
    forced = parse_forced(engine, device)
    with tempfile.TemporaryDirectory() as folder:
        images = load_development(DataSpec(dataset, data_dir, Path(folder) / "cache"))
        rows = choose_rows(len(images.labels_N), num_images)
        split = Split(torch.tensor(rows.train), torch.tensor(rows.validation))
        data = load_resident(images, split, device=device)
        input_spec = input_spec_of(images)
        space, _ = decide_flip(load_space("resnet"), dataset, images.class_names)
        network = candidate_from(first_params(space)[0], space, input_spec, epochs=epochs)
        measured = force(
            load_or_measure(device, input_spec.shape, num_threads=1, cache_dir=machine_cache_dir()), forced
        )
        say(f"{device_name(device)}, torch {torch.__version__}; engine {measured.engine}")
        say(f"{network.architecture}: {len(rows.train):,} images, {epochs} epochs; {len(rows.validation):,} to score")
        prepare_process(measured.engine)
        done: list[Row] = []
        for name in dict.fromkeys([BASE, *names]):
            recipe = replace(RECIPE, epochs=epochs, **ADDITIONS[name])
            candidate = resolve_candidate(Candidate(network.architecture, recipe))
            for row in trained(name, candidate, data, engine=measured.engine, num_seeds=num_seeds):
                done.append(row)
                say(f"{row.name}: {row.correct_SN.mean():.2%} in {mean(row.seconds):.1f} s")
    return {
        "machine": device_name(device),
        "torch": torch.__version__,
        "engine": measured.engine.to_json(),
        "network": str(network.architecture),
        "images": len(rows.train),
        "epochs": epochs,
        "seeds": num_seeds,
        "recipes": compared(done),
    }


def trained(name: str, candidate: Candidate, data: ResidentData, *, engine: Engine, num_seeds: int) -> Iterator[Row]:
    """Train with each seed; yield the row, and for the base recipe also that of its networks with a flip test."""
    seconds, correct, flipped = [], [], []
    for seed in range(num_seeds):
        started = time.perf_counter()
        try:
            *_, last = train(candidate, data, engine=engine, seed=seed, scores_all=False)
        except Diverged as error:
            message = f"{name}, seed {seed}: every training must end with a score; {error}: lower the learning rate"
            raise RunnerError(message) from error
        seconds.append(time.perf_counter() - started)
        assert last.correct_N is not None
        assert last.weights is not None
        correct.append(last.correct_N)
        if name == BASE:
            model = build_model(as_traced(candidate.architecture))
            model.load_state_dict(last.weights)
            plain = Engine(engine.device, num_threads=engine.num_threads)
            flipped.append(evaluate(FlipTest(*model).to(engine.device), data, engine=plain)[1])
    yield Row(name, candidate.recipe, seconds, np.stack(correct))
    if flipped:
        yield Row(FLIP_TEST, candidate.recipe, seconds, np.stack(flipped))


def compared(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each row with its mean accuracy, its difference from the base recipe and the ratio of seconds.

    The intervals cover seeds and images, as those of a confirmation do; without a second seed there are none.
    """
    base = rows[0]
    races = [RaceRow(row.correct_SN.mean(1).tolist(), row.correct_SN) for row in rows]
    spread = spread_in_race(races, validation_share=0.0)
    return [
        {
            "name": row.name,
            "recipe": {key: value for key, value in vars(row.recipe).items() if value != getattr(RECIPE, key)},
            "accuracy": float(row.correct_SN.mean()),
            "accuracy_by_seed": row.correct_SN.mean(1).tolist(),
            "interval": accuracy_interval(row.correct_SN, spread),
            "difference": float(row.correct_SN.mean() - base.correct_SN.mean()),
            "difference_interval": difference_interval(row.correct_SN, base.correct_SN, spread)
            if row is not base
            else None,
            "seconds": mean(row.seconds),
            "ratio_of_seconds": mean(row.seconds) / mean(base.seconds),
        }
        for row in rows
    ]


def table(result: dict[str, Any]) -> str:
    """The measurement as text: a row for each recipe."""
    interval = "95 % interval"
    lines = [f"{'recipe':<14} {'accuracy':>8} {interval:>17} {'difference':>10} {interval:>17} {'seconds':>7} ratio"]
    lines += [
        f"{row['name']:<14} {row['accuracy']:8.2%} {_shown(row['interval']):>17} {row['difference']:+10.2%} "
        f"{_shown(row['difference_interval'], sign='+'):>17} {row['seconds']:7.1f} {row['ratio_of_seconds']:5.2f}"
        for row in result["recipes"]
    ]
    return "\n".join(lines)


def _shown(interval: tuple[float, float] | None, *, sign: str = "") -> str:
    return "-" if interval is None else " to ".join(format(100 * end, f"{sign}.2f") for end in interval)
