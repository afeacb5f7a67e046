"""What a script like Optuna's own PyTorch example finds in a given time: networks defined by trial, TPE, median pruner.

Source of the example: pytorch/pytorch_simple.py of optuna/optuna-examples, with convolutions instead of its linear
layers. The ranges of the learning rate, the optimizers and the number of epochs are those of the example.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import BaseTrial, FrozenTrial, TrialState
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.example_result import ExampleResult
from tuner.data.dataset import DataSpec, ImageDataset
from tuner.data.sealed import fix_parts, open_sealed
from tuner.data.splits import channel_statistics, split_development
from tuner.deliver.intervals import wilson
from tuner.hardware import device_name, num_cores
from tuner.training.device import choose_device

BATCH_SIZE = 64
EPOCHS = 10
MAX_BLOCKS = 3
Say = Callable[[str], None]
Loader = DataLoader[tuple[Tensor, ...]]


@dataclass(frozen=True, eq=False)
class Setup:
    """What every trial shares. folder: for the weights of the trials. image_shape: (C, H, W)."""

    train: Loader
    validation: Loader
    image_shape: tuple[int, int, int]
    num_classes: int
    device: torch.device
    folder: Path

    def weights_path(self, number: int) -> Path:
        """Path of the weights of a complete trial."""
        return self.folder / f"{number}.pt"


def measure(spec: DataSpec, *, minutes: float, seed: int, say: Say) -> ExampleResult:
    """Search for about this time, then score the best trial's network on the test set.

    The images and their parts are those of a search with the same seed. The seconds include everything but reading the
    images. As with any `study.optimize(timeout=...)`, a trial that has started is trained to its end. Raises DataError
    for a data set that cannot be used.
    """
    parts = fix_parts(spec)
    development = parts.development
    device = choose_device("auto")
    say(f"{device_name(device)}, {num_cores()} cores, torch {torch.__version__}, Optuna {optuna.__version__}")
    torch.set_num_threads(num_cores())
    torch.set_flush_denormal(False)
    torch.manual_seed(seed)
    started = time.perf_counter()
    split = split_development(development, seed=seed)
    mean_and_std = channel_statistics(development.images_NCHW, split.train_indices_N)
    channels, height, width = development.images_NCHW.shape[1:]
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(
            loader_of(development, mean_and_std, rows_N=split.train_indices_N, shuffle=True),
            loader_of(development, mean_and_std, rows_N=split.validation_indices_N),
            (channels, height, width),
            len(development.class_names),
            device,
            Path(folder),
        )
        study = search(setup, seconds=60 * minutes, seed=seed, started=started, say=say)
        best = study.best_trial
        model = define_model(best, setup.image_shape, setup.num_classes).to(device)
        model.load_state_dict(torch.load(setup.weights_path(best.number), weights_only=True))
    seconds = time.perf_counter() - started
    test_set = open_sealed(parts.test)
    started = time.perf_counter()
    num_test = len(test_set.labels_N)
    correct = count_correct(model, loader_of(test_set, mean_and_std, rows_N=torch.arange(num_test)), device)
    seconds += time.perf_counter() - started
    assert best.value is not None
    return ExampleResult(
        dataset=development.name,
        machine=device_name(device),
        torch=torch.__version__,
        optuna=optuna.__version__,
        minutes=minutes,
        seed=seed,
        num_train=len(split.train_indices_N),
        num_validation=len(split.validation_indices_N),
        num_test=num_test,
        num_complete=len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])),
        num_pruned=len(study.get_trials(deepcopy=False, states=[TrialState.PRUNED])),
        seconds=seconds,
        best_trial=best.number,
        best_params=dict(best.params),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        validation_accuracy=best.value,
        test_accuracy=correct / num_test,
        test_interval=wilson(correct / num_test, num_test),
    )


def search(setup: Setup, *, seconds: float, seed: int, started: float, say: Say) -> optuna.Study:
    """Run one trial after another until the time is up; at least one. started: when the time began to count."""

    def objective(trial: optuna.Trial) -> float:
        model, accuracy = train(trial, setup)
        torch.save(model.state_dict(), setup.weights_path(trial.number))
        return accuracy

    def report(study: optuna.Study, trial: FrozenTrial) -> None:
        accuracy = max(trial.intermediate_values.values(), default=0.0)
        say(f"{time.perf_counter() - started:6.0f} s  trial {trial.number} {trial.state.name.lower()} {accuracy:.2%}")

    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed), pruner=optuna.pruners.MedianPruner()
    )
    study.optimize(objective, timeout=seconds - (time.perf_counter() - started), callbacks=[report])
    return study


def train(trial: optuna.Trial, setup: Setup) -> tuple[nn.Sequential, float]:
    """Train one trial; return its network and its validation accuracy (0..1). Raises TrialPruned."""
    model = define_model(trial, setup.image_shape, setup.num_classes).to(setup.device)
    name = trial.suggest_categorical("optimizer", ["Adam", "RMSprop", "SGD"])
    learning_rate = trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)
    optimizer: torch.optim.Optimizer = getattr(torch.optim, name)(model.parameters(), lr=learning_rate)
    num_validation = sum(len(labels_B) for _, labels_B in setup.validation)
    accuracy = 0.0
    for epoch in range(EPOCHS):
        model.train()
        for images_BCHW, labels_B in setup.train:
            loss = functional.cross_entropy(model(images_BCHW.to(setup.device)), labels_B.to(setup.device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        accuracy = count_correct(model, setup.validation, setup.device) / num_validation
        trial.report(accuracy, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return model, accuracy


def define_model(trial: BaseTrial, image_shape: tuple[int, int, int], num_classes: int) -> nn.Sequential:
    """Build the network of a trial: 1 to 3 blocks, as many as the images can be halved, and a hidden linear layer."""
    channels, *sides = image_shape
    num_blocks = trial.suggest_int("num_blocks", 1, min(MAX_BLOCKS, max(1, min(sides).bit_length() - 1)))
    layers: list[nn.Module] = []
    for block in range(num_blocks):
        out_channels = trial.suggest_int(f"out_channels_{block}", 16, 128, log=True)
        kernel_size = trial.suggest_categorical(f"kernel_size_{block}", [3, 5])
        dropout = trial.suggest_float(f"dropout_{block}", 0.0, 0.5)
        convolution = nn.Conv2d(channels, out_channels, kernel_size, padding="same")
        layers += [convolution, nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(dropout)]
        channels = out_channels
        sides = [side // 2 for side in sides]
    hidden_features = trial.suggest_int("hidden_features", 32, 256, log=True)
    dropout = trial.suggest_float("dropout_hidden", 0.0, 0.5)
    layers += [nn.Flatten(), nn.Linear(channels * sides[0] * sides[1], hidden_features), nn.ReLU()]
    layers += [nn.Dropout(dropout), nn.Linear(hidden_features, num_classes)]
    return nn.Sequential(*layers)


def loader_of(images: ImageDataset, mean_and_std: tuple[Any, Any], *, rows_N: Tensor, shuffle: bool = False) -> Loader:
    """Serve images as normalized fp32 tensors, which are made once."""
    mean_C11, std_C11 = (torch.tensor(values).view(-1, 1, 1) for values in mean_and_std)
    images_NCHW = images.images_NCHW[rows_N].float().div_(255).sub_(mean_C11).div_(std_C11)
    return DataLoader(TensorDataset(images_NCHW, images.labels_N[rows_N]), batch_size=BATCH_SIZE, shuffle=shuffle)


def count_correct(model: nn.Module, loader: Loader, device: torch.device) -> int:
    """Count the images that a network classifies correctly."""
    model.eval()
    num_correct = 0
    with torch.no_grad():
        for images_BCHW, labels_B in loader:
            num_correct += int((model(images_BCHW.to(device)).argmax(1) == labels_B.to(device)).sum())
    return num_correct
