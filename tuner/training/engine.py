"""How the steps of a study's trials are computed: device, precision, layout, and which ways are the fast ones there."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.architecture.fast import FastForm, Forward, fast_form, scoring_form
from tuner.architecture.spec import Architecture
from tuner.errors import DeviceError
from tuner.training.candidate import Recipe
from tuner.training.graph import graphed
from tuner.training.unused_memory import give_back_freed_memory, keep_few_kernels, keep_freed_memory

Step = Callable[[Tensor, Tensor, float], Tensor]
"""(images_NCHW, labels_N, learning rate) -> the batch's loss, a scalar that is still on the device; it has learned.

Of models in one: (images (N, M * C, H, W), labels_MN, learning rate) -> their losses_M.
"""


@dataclass(frozen=True)
class Engine:
    """How steps are computed; kept in the study, so that a resumed one computes the same.

    The defaults are the plain way, against which every other is checked.

    device: as torch names it. num_threads: of each runner, on a CPU.
    precision: of activations; weights, optimizer and scores are fp32 always.
    blocks: `layers` runs torch's modules one after another, `fused` a whole block as one autograd node (CPU).
    early_pooling: in fused blocks, a monotone activation after max pooling, on a quarter of the values.
    byte_dropout: in fused blocks, dropout masks from one random byte for each element.
    optimizer: torch.optim's implementation.
    keep_freed_memory: tell glibc not to give freed memory back to the system until the trial is over.
    graph: replay the whole step as one CUDA graph. tf32: let CUDA multiply fp32 matrices in TF32.
    seeds_together: where a candidate trains with several seeds, their models learn in the same steps, as one network.
    """

    device: str = "cpu"
    num_threads: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = False
    blocks: Literal["layers", "fused"] = "layers"
    early_pooling: bool = False
    byte_dropout: bool = False
    optimizer: Literal["foreach", "fused"] = "foreach"
    flush_denormals: bool = False
    keep_freed_memory: bool = False
    tf32: bool = False
    graph: bool = False
    seeds_together: bool = False

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `Engine.from_json` reads it back."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Engine:
        """The engine in a JSON object."""
        return Engine(**data)


def choose_device(name: str) -> torch.device:
    """The device of a name: `auto` takes CUDA, then MPS, then the CPU; anything else must be there.

    Raises DeviceError.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"--device must be auto, cpu, mps, cuda or cuda:N, got {name!r}") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise DeviceError(
                f"--device {name}: this machine has {count} CUDA devices that torch can use; try --device auto"
            )
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise DeviceError("--device mps: torch finds no MPS device here; try --device auto")
    elif device.type != "cpu" or device.index is not None:
        raise DeviceError(f"--device must be auto, cpu, mps, cuda or cuda:N, got {name!r}")
    return device


def prepare_process(engine: Engine) -> None:
    """Set what torch, oneDNN and the C library keep for the whole process, before the first step.

    GPU, threads, denormals, TF32, compiled kernels, freed memory.
    """
    keep_few_kernels()
    device = torch.device(engine.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # where streams are made and graphs captured
    torch.set_num_threads(engine.num_threads)
    torch.set_flush_denormal(engine.flush_denormals)
    torch.backends.cudnn.benchmark = False  # it times every new shape: no use in short trials
    torch.backends.cuda.matmul.allow_tf32 = engine.tf32
    torch.backends.cudnn.allow_tf32 = engine.tf32
    if sys.platform == "linux":
        keep_freed_memory(engine.keep_freed_memory)


def give_back_memory(engine: Engine) -> None:
    """Give back what a training that is over has left in this process, for the others that share its device.

    On a GPU torch keeps freed memory for its process, and that of a captured graph even for this graph alone. What
    hangs in cycles of references, such as those of an error, is freed first. On a CPU the C library keeps it.
    """
    if torch.device(engine.device).type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
    elif sys.platform == "linux":
        give_back_freed_memory()


def input_dtype(engine: Engine) -> torch.dtype:
    """The dtype of a step's images. Fused blocks follow the dtype of their input; autocast casts by itself."""
    return torch.bfloat16 if engine.blocks == "fused" and engine.precision == "bf16" else torch.float32


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """No TF32 within the block: scores are fp32's, as plain torch computes them."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


def place(model: nn.Module, engine: Engine) -> None:
    """Move a model to the engine's device, in its layout."""
    model.to(torch.device(engine.device))
    model.to(memory_format=torch.channels_last if engine.channels_last else torch.contiguous_format)


def prepare_step(
    model: nn.Sequential,
    architecture: Architecture,
    recipe: Recipe,
    *,
    engine: Engine,
    optimizer: torch.optim.Optimizer,
) -> Step:
    """The training step of a placed model, or of several that `build_stacked` made one, as the engine has it."""
    forward = prepare_forward(model, architecture, engine=engine)

    def learn(images_NCHW: Tensor, labels_N: Tensor) -> Tensor:
        logits_NK = forward(images_NCHW)
        loss = _mean_loss(logits_NK.float(), labels_N, label_smoothing=recipe.label_smoothing)
        loss.backward(torch.ones_like(loss))  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(
            set_to_none=True
        )  # here, so that neither the next forward pass nor scoring has them beside it
        return loss.detach()

    learn_fast = graphed(learn, batch_size=recipe.batch_size) if engine.graph else learn

    def step(images_NCHW: Tensor, labels_N: Tensor, learning_rate: float) -> Tensor:
        set_learning_rate(optimizer, learning_rate)
        return learn_fast(images_NCHW, labels_N)

    return step


def prepare_forward(model: nn.Sequential, architecture: Architecture, *, engine: Engine) -> Forward:
    """A placed model's images_NCHW (of `input_dtype`) to logits_NK in training, as the engine computes them."""
    form = FastForm(early_pooling=engine.early_pooling, byte_dropout=engine.byte_dropout)
    forward = fast_form(model, form) if engine.blocks == "fused" else model
    autocast = torch.autocast(
        torch.device(engine.device).type,
        dtype=torch.bfloat16,
        enabled=engine.blocks == "layers" and engine.precision == "bf16",
        cache_enabled=not engine.graph,  # a cast kept from outside of a captured graph would go stale in it
    )

    def forward_in_precision(images_NCHW: Tensor) -> Tensor:
        with autocast:
            return forward(images_NCHW)

    return forward_in_precision


def prepare_scoring(model: nn.Sequential, *, engine: Engine) -> Forward:
    """A placed model's images_NCHW (fp32) to logits_NK in evaluation, as the engine computes them."""
    return scoring_form(model) if engine.blocks == "fused" else model


def _mean_loss(logits: Tensor, labels: Tensor, *, label_smoothing: float) -> Tensor:
    """Cross-entropy in nats: (N, K) and (N,) to its mean; (M, N, K) and (M, N) to the mean of each of M models."""
    if labels.dim() == 1:
        return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    losses = functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="none", label_smoothing=label_smoothing
    )
    return losses.view_as(labels).mean(1)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the rate of the next step, in place where it is a tensor, as a captured step needs it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate


def build_optimizer(parameters: Iterable[nn.Parameter], recipe: Recipe, *, engine: Engine) -> torch.optim.Optimizer:
    """The recipe's optimizer; the learning rate is set before every step."""
    parameters = list(parameters)
    is_fused = engine.optimizer == "fused"
    implementation: dict[str, Any] = {"fused": is_fused, "foreach": not is_fused}
    learning_rate: float | Tensor = recipe.learning_rate
    if engine.graph:
        learning_rate = torch.tensor(recipe.learning_rate, device=engine.device)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
            **implementation,
        )
    optimizer_class = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return optimizer_class(
        parameters, lr=learning_rate, weight_decay=recipe.weight_decay, capturable=engine.graph, **implementation
    )
