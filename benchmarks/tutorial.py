"""The recipe of PyTorch's transfer-learning tutorial, and our search with the same weights and images.

Source: "Transfer Learning for Computer Vision Tutorial" of pytorch.org, section "Finetuning the ConvNet". Its images
are scored after every epoch, and its result is the best epoch. The images that are scored are those of the test folder
here, so that both sides have the same ones; our search opens them once, at its end.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets.folder import pil_loader

from benchmarks.image_folders import list_with_test_part
from benchmarks.own_search import OwnSearch, Say, in_words, run_search
from benchmarks.pretrained_space import write_space
from tuner.architecture.backbones import BackboneInput, build_backbone, input_of
from tuner.data.dataset import DataSpec
from tuner.data.folder_listing import Classes, FolderListing
from tuner.data.sealed import fix_parts
from tuner.deliver.classifier import load_classifier
from tuner.deliver.evaluate import evaluate
from tuner.hardware import device_name, num_cores
from tuner.pretrained.weights_file import read_weights
from tuner.training.device import choose_device

EPOCHS, BATCH_SIZE = 25, 4
LEARNING_RATE, MOMENTUM = 1e-3, 0.9
STEP_EPOCHS, STEP_FACTOR = 7, 0.1
Batches = DataLoader[tuple[Tensor, int]]


@dataclass(frozen=True)
class Plan:
    """What is measured. dataset: path of an image folder with train/ and test/. file: weights of the backbone."""

    dataset: str
    backbone: str
    file: Path
    seed: int
    budget: str


@dataclass(frozen=True)
class Epoch:
    """An epoch of the tutorial. seconds: since its start. accuracy: on the test images, in 0..1."""

    number: int
    seconds: float
    accuracy: float


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Image files with their labels, decoded and transformed whenever one is asked for, as torchvision's folders."""

    def __init__(self, root: Path, parts: Sequence[Classes], transform: transforms.Compose) -> None:
        """List the files. parts: each with the same classes in the same order."""
        self.files = [
            (root / file.name, label)
            for classes in parts
            for label, files in enumerate(classes.values())
            for file in files
        ]
        self._transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        path, label = self.files[row]
        image_CHW: Tensor = self._transform(pil_loader(str(path)))
        return image_CHW, label


def measure(plan: Plan, *, say: Say) -> dict[str, Any]:
    """Train as the tutorial does, then search with the budget, one after the other.

    Every image is read once beforehand, which is not timed: a broken one is an error before anything is trained, and
    neither side waits for a disk. Raises DataError for a folder without test images, and BackboneError for weights
    that do not fit.
    """
    listing = list_with_test_part(plan.dataset)
    dataset = str(listing.root)
    weights = read_weights(plan.file, plan.backbone)
    device = choose_device("auto")
    say(f"{device_name(device)}, {num_cores()} cores, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        fix_parts(DataSpec(dataset, Path(folder), Path(folder) / "cache"))
        train, scored = image_files(listing, input_of(plan.backbone))
        epochs = []
        for epoch in train_as_tutorial(plan, weights, train, scored, device=device):
            say(f"tutorial {epoch.seconds:6.0f} s  epoch {epoch.number} {epoch.accuracy:.2%}")
            epochs.append(epoch)
        space = write_space(Path(folder), plan.backbone)
        options = ["--dataset", dataset, "--space", str(space), "--weights", f"{plan.backbone}={plan.file}"]
        options += ["--budget", plan.budget, "--seed", str(plan.seed)]
        say(f"ours: tuner run {' '.join(options)}")
        own = run_search(options, studies=Path(folder) / "studies", say=say)
        spec = DataSpec(dataset, Path(folder), own.studies / ".cache")
        return {
            "dataset": listing.root.name,
            "machine": device_name(device),
            "cores": num_cores(),
            "torch": torch.__version__,
            "backbone": plan.backbone,
            "seed": plan.seed,
            "budget": plan.budget,
            "num_train": len(train),
            "num_test": len(scored),
            **figures(epochs, own, spec),
        }


def image_files(listing: FolderListing, own: BackboneInput) -> tuple[ImageFiles, ImageFiles]:
    """The images to train on, with the tutorial's augmentation, and those to score.

    Both have the size, interpolation, mean and standard deviation of the weights. A validation folder is trained on,
    as it is for the final network of a confirmation.
    """
    interpolation = transforms.InterpolationMode(own.interpolation)
    size = (own.height, own.width)
    as_input = [transforms.ToTensor(), transforms.Normalize(own.mean, own.std)]
    augmented = transforms.Compose(
        [
            transforms.RandomResizedCrop(size, interpolation=interpolation),
            transforms.RandomHorizontalFlip(),
            *as_input,
        ]
    )
    resized = round(min(size) / own.crop_fraction)
    cropped = transforms.Compose([transforms.Resize(resized, interpolation), transforms.CenterCrop(size), *as_input])
    developed = [listing.train, *([listing.validation] if listing.validation else [])]
    assert listing.test is not None
    return ImageFiles(listing.root, developed, augmented), ImageFiles(listing.root, [listing.test], cropped)


def train_as_tutorial(
    plan: Plan, weights: dict[str, Tensor], train: ImageFiles, scored: ImageFiles, *, device: torch.device
) -> Iterator[Epoch]:
    """Yield every epoch. The seconds include making the network, its weights and the processes that read images."""
    started = time.perf_counter()
    torch.set_num_threads(num_cores())
    torch.set_flush_denormal(False)
    torch.manual_seed(plan.seed)
    model = make_model(plan.backbone, weights, num_classes=1 + max(label for _, label in train.files)).to(device)
    batches = DataLoader(train, batch_size=BATCH_SIZE, shuffle=True, num_workers=num_cores())
    scored_batches = DataLoader(scored, batch_size=BATCH_SIZE, num_workers=num_cores())
    loss_of = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=STEP_EPOCHS, gamma=STEP_FACTOR)
    for number in range(1, EPOCHS + 1):
        model.train()
        for images_BCHW, labels_B in batches:
            optimizer.zero_grad()
            loss = loss_of(model(images_BCHW.to(device)), labels_B.to(device))
            loss.backward()
            optimizer.step()
        schedule.step()
        accuracy = count_correct(model, scored_batches, device) / len(scored)
        yield Epoch(number, time.perf_counter() - started, accuracy)


def make_model(backbone_name: str, weights: dict[str, Tensor], *, num_classes: int) -> nn.Module:
    """Build a pretrained network with a new linear classifier. All of it is trained."""
    backbone = build_backbone(backbone_name)
    backbone.model.load_state_dict(weights, strict=False)  # without the classifier, which is replaced
    return backbone.attach_head(nn.Linear(backbone.num_features, num_classes))


def count_correct(model: nn.Module, batches: Batches, device: torch.device) -> int:
    """Count the images that a network classifies correctly."""
    model.eval()
    num_correct = 0
    with torch.no_grad():
        for images_BCHW, labels_B in batches:
            num_correct += int((model(images_BCHW.to(device)).argmax(1) == labels_B.to(device)).sum())
    return num_correct


def figures(epochs: Sequence[Epoch], own: OwnSearch, spec: DataSpec) -> dict[str, Any]:
    """The figures of both sides, and how many times as long the tutorial took to its accuracy.

    The tutorial has two accuracies: that of its last epoch, and that of its best one, which it chooses on the images
    that score it. Ours has reached an accuracy once the best trial of the search so far has it on the test images; if
    none has, with the delivered network, at the end. Trials are chosen by their validation accuracy, and scored on the
    test set after the search.
    """
    best, last = max(epochs, key=lambda epoch: (epoch.accuracy, -epoch.number)), epochs[-1]
    trials = [
        {
            "trial": trial.number,
            "seconds": seconds,
            "validation_accuracy": trial.validation_accuracy,
            "accuracy": evaluate(load_classifier(own.checkpoint_of(trial)), spec, part="test").accuracy,
        }
        for seconds, trial in own.best_so_far()
    ]
    end = {"seconds": own.seconds, "accuracy": own.confirmed.delivered_test_accuracy}
    return {
        "tutorial": {
            "epochs": [asdict(epoch) for epoch in epochs],
            "best_accuracy": best.accuracy,
            "best_epoch": best.number,
            "seconds_to_best": best.seconds,
            "last_accuracy": last.accuracy,
            "seconds": last.seconds,
        },
        "ours": {**own.to_json(), "best_trials": trials},
        "to_last": times_to([*trials, end], last.accuracy, own=own, seconds=last.seconds),
        "to_best": times_to([*trials, end], best.accuracy, own=own, seconds=last.seconds),
    }


def times_to(networks: Sequence[dict[str, Any]], accuracy: float, *, own: OwnSearch, seconds: float) -> dict[str, Any]:
    """How long ours took to an accuracy of the tutorial, which took `seconds` for all of its epochs.

    ratio: the tutorial's seconds divided by those until our search had the accuracy; None if it never had.
    ratio_of_command: divided by the seconds of our whole command; None if the confirmed accuracy is lower.
    """
    reached = seconds_reached(networks, accuracy)
    return {
        "accuracy": accuracy,
        "seconds_reached": reached,
        "ratio": None if reached is None else seconds / reached,
        "ratio_of_command": seconds / own.seconds if own.confirmed.test_accuracy >= accuracy else None,
    }


def seconds_reached(networks: Sequence[dict[str, Any]], accuracy: float) -> float | None:
    """Seconds of the first network with at least this accuracy; None if there is none."""
    return next((one["seconds"] for one in networks if one["accuracy"] >= accuracy), None)


def table(result: dict[str, Any]) -> str:
    """Format a result as text."""
    tutorial, ours = result["tutorial"], result["ours"]
    accuracy = f"{tutorial['best_accuracy']:.2%}"
    lines = [
        f"{result['dataset']}: {result['num_train']} images to train on, {result['num_test']} to test; "
        f"{result['backbone']}, seed {result['seed']}",
        f"tutorial  best {accuracy} (epoch {tutorial['best_epoch']}, after {tutorial['seconds_to_best']:.0f} s), "
        f"last {tutorial['last_accuracy']:.2%}, {len(tutorial['epochs'])} epochs, {tutorial['seconds']:.0f} s",
        f"ours      confirmed {in_words(ours)}",
    ]
    return "\n".join([*lines, *words_of("last", result["to_last"]), *words_of("best", result["to_best"])])


def words_of(epoch: str, times: dict[str, Any]) -> list[str]:
    """Two lines about the accuracy of the tutorial's last or best epoch."""
    accuracy = f"{times['accuracy']:.2%} ({epoch} epoch)"
    if times["seconds_reached"] is None:
        return [f"ours has not reached {accuracy}"]
    reached = (
        f"ours reached {accuracy} after {times['seconds_reached']:.0f} s: the tutorial takes {times['ratio']:.1f} "
    )
    if times["ratio_of_command"] is None:
        return [f"{reached}times as long", "the confirmed accuracy of our winner, the mean over seeds, is below it"]
    return [f"{reached}times as long, and {times['ratio_of_command']:.1f} times as long as our whole command"]
