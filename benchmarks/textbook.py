"""The textbook: torchvision's transforms image by image, DataLoader, fp32, torch's own optimizer and modules."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms

from benchmarks.subset import Rows
from tuner.architecture.any_architecture import as_traced
from tuner.architecture.factory import build_path
from tuner.architecture.trace import trace
from tuner.data.development_part import load_cached
from tuner.errors import OptionError
from tuner.training.candidate import Candidate, Recipe
from tuner.training.schedule import learning_rate_factor

MEAN_AND_STD = {1: ((0.1307,), (0.3081,)), 3: ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))}
"""Mean and standard deviation of MNIST and of CIFAR-10, by the number of channels."""


class DecodedImages(Dataset[tuple[Any, int]]):
    """Decoded images in memory, served as torchvision's data sets serve theirs: one Pillow image after another."""

    def __init__(self, folder: Path) -> None:
        images = load_cached(folder)
        self.labels: list[int] = images.labels_N.tolist()
        self.num_channels = images.images_NCHW.shape[1]
        pixels_NHWC = images.images_NCHW.permute(0, 2, 3, 1)
        self._pixels = (pixels_NHWC[..., 0] if self.num_channels == 1 else pixels_NHWC).contiguous().numpy()
        self._transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize(*MEAN_AND_STD[self.num_channels])]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return self._transform(Image.fromarray(self._pixels[row])), self.labels[row]


def train_textbook(
    candidate: Candidate, folder: Path, rows: Rows, *, seed: int, device: torch.device
) -> Iterator[tuple[float, float]]:
    """Yield (seconds since the start, accuracy) after every epoch. folder: the `ImageDataset.folder` of the images."""
    images = DecodedImages(folder)
    recipe = candidate.recipe
    torch.manual_seed(seed)
    loader = DataLoader(Subset(images, rows.train), batch_size=recipe.batch_size, shuffle=True)
    scored = DataLoader(Subset(images, rows.validation), batch_size=256)
    model = build_path(
        trace(as_traced(candidate.architecture)), lambda layer: getattr(nn, layer.kind)(**layer.arguments)
    )
    model.to(device)
    optimizer = textbook_optimizer(model, recipe)
    num_steps = recipe.epochs * len(loader)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(recipe.schedule, min(step, num_steps - 1), num_steps=num_steps)
    )
    started = time.perf_counter()
    for _ in range(recipe.epochs):
        model.train()
        for images_NCHW, labels_N in loader:
            images_NCHW, labels_N = images_NCHW.to(device), labels_N.to(device)
            loss = functional.cross_entropy(model(images_NCHW), labels_N, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        model.eval()
        num_correct = 0
        with torch.no_grad():
            for images_NCHW, labels_N in scored:
                images_NCHW, labels_N = images_NCHW.to(device), labels_N.to(device)
                num_correct += int((model(images_NCHW).argmax(1) == labels_N).sum())
        yield time.perf_counter() - started, num_correct / len(rows.validation)


def textbook_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """torch's optimizer with its defaults, but for what the recipe says.

    Raises OptionError for an optimizer that a textbook's loop does not have.
    """
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=True,
            weight_decay=recipe.weight_decay,
        )
    if recipe.optimizer not in ("adam", "adamw"):
        raise OptionError(f"the textbook's optimizer must be adam, adamw or sgd, got {recipe.optimizer}")
    optimizer_class = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return optimizer_class(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
