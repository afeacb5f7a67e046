"""The textbook: torchvision's transforms image by image, DataLoader, fp32, torch's own optimizer and modules."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from benchmarks.subset import Rows
from tuner.architecture.parts import layers_of
from tuner.architecture.trace import trace
from tuner.training.candidate import Candidate, Recipe
from tuner.training.schedule import learning_rate_factor

MEAN, STD = (0.1307,), (0.3081,)
DATASETS = {
    "mnist": datasets.MNIST,
    "fashion-mnist": datasets.FashionMNIST,
    "kmnist": datasets.KMNIST,
    "qmnist": datasets.QMNIST,
    "usps": datasets.USPS,
    "cifar10": datasets.CIFAR10,
    "cifar100": datasets.CIFAR100,
}
"""Those that torchvision opens with `train=True`."""


def train_textbook(
    candidate: Candidate, data_dir: Path, rows: Rows, *, dataset: str, seed: int, device: torch.device
) -> Iterator[tuple[float, float]]:
    """Yield (seconds since the start, accuracy) after every epoch."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    images = DATASETS[dataset](data_dir, train=True, transform=transform)
    recipe = candidate.recipe
    torch.manual_seed(seed)
    loader = DataLoader(Subset(images, rows.train), batch_size=recipe.batch_size, shuffle=True)
    scored = DataLoader(Subset(images, rows.validation), batch_size=256)
    layers = layers_of(trace(candidate.architecture))
    model = nn.Sequential(*(getattr(nn, layer.kind)(**layer.arguments) for layer in layers)).to(device)
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
    """torch's optimizer with its defaults, but for what the recipe says."""
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=True,
            weight_decay=recipe.weight_decay,
        )
    optimizer_class = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return optimizer_class(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
