"""Optimizers of a recipe: torch's own, SGD with decoupled weight decay, and Muon with AdamW beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, assert_never

import torch
from torch import Tensor, nn

from tuner.architecture.layer_modules import LinearEach
from tuner.training.candidate import Recipe
from tuner.training.engine import Engine


class SGDW(torch.optim.SGD):
    """torch.optim.SGD that first multiplies the weights of a group by 1 - learning rate * `decoupled_decay`.

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019, in the form of torch.optim.AdamW.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Decay the weights of each group, then take torch's step."""
        for group in self.param_groups:
            if group["decoupled_decay"]:
                torch._foreach_mul_(group["params"], 1 - group["lr"] * group["decoupled_decay"])
        return super().step(closure)


@dataclass(frozen=True)
class MatrixWeight:
    """The weight of a convolution or a linear layer, which consists of matrices: one for each model and group.

    The matrices follow one another along the first dimension and have the same shape (outputs, inputs).
    """

    parameter: Tensor
    num_matrices: int

    @property
    def is_vector(self) -> bool:
        """Whether each matrix has only one row or column, as in a depthwise convolution."""
        return len(self.parameter) == self.num_matrices or self.parameter[0].numel() == 1

    def matrices(self, tensor: Tensor) -> Sequence[Tensor]:
        """Return the matrices of the weight or its gradient, as views of a tensor that has the layout of the weight.

        The columns are in the order of the weight's memory, in every one of which Muon gives the same, except for
        rounding.
        """
        if not self.parameter.is_contiguous():
            tensor = tensor.permute(0, 2, 3, 1)  # channels_last
        return tensor.reshape(len(tensor), -1).chunk(self.num_matrices)


class MuonAndAdamW:
    """torch.optim.Muon for the weights of convolutions and linear layers, and AdamW for everything else.

    The matrices of each seed, and of each group of a convolution, are orthogonalized by themselves. Weights that are
    vectors, as each filter of a depthwise convolution is, belong to AdamW, since Muon would only normalize them. Norms
    and biases belong to AdamW and have no weight decay. Muon scales its updates to the size of AdamW's
    (`match_rms_adamw`), so one learning rate and one weight decay serve both.

    Source: Keller Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024, which flattens the last
    three dimensions of a convolution, as cifar10-airbench does; for the scale, Liu et al., Muon is Scalable for LLM
    Training, 2025, section 2.2.
    """

    def __init__(
        self, weights: Sequence[MatrixWeight], others: Sequence[Tensor], recipe: Recipe, **implementation: Any
    ) -> None:
        self._weights = [weight for weight in weights if not weight.is_vector]
        vectors = [weight.parameter for weight in weights if weight.is_vector]
        groups = ((vectors, recipe.weight_decay), (others, 0.0))
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                [{"params": parameters, "weight_decay": decay} for parameters, decay in groups if parameters],
                lr=recipe.learning_rate,
                **implementation,
            )
        ]
        # torch.optim.Muon takes whole matrices, so each gets a parameter of its own in the memory of its weight.
        self._matrices = [
            [nn.Parameter(matrix) for matrix in weight.matrices(weight.parameter.detach())] for weight in self._weights
        ]
        for weight, matrices in zip(self._weights, self._matrices, strict=True):
            assert matrices[0].data_ptr() == weight.parameter.data_ptr(), "Muon would train a copy of the weight"
        if self._weights:
            self._optimizers.append(
                torch.optim.Muon(
                    [matrix for matrices in self._matrices for matrix in matrices],
                    lr=recipe.learning_rate,
                    weight_decay=recipe.weight_decay,
                    momentum=recipe.momentum,
                    nesterov=recipe.momentum > 0,
                    adjust_lr_fn="match_rms_adamw",
                )
            )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of both optimizers."""
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def step(self) -> None:
        """Take a step of both optimizers with the gradients of the model's parameters."""
        for weight, matrices in zip(self._weights, self._matrices, strict=True):
            assert weight.parameter.grad is not None
            for matrix, gradient in zip(matrices, weight.matrices(weight.parameter.grad), strict=True):
                matrix.grad = gradient
        for optimizer in self._optimizers:
            optimizer.step()

    def zero_grad(self, *, set_to_none: Literal[True] = True) -> None:
        """Release the gradients."""
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=set_to_none)
        for weight in self._weights:
            weight.parameter.grad = None


AnyOptimizer = torch.optim.Optimizer | MuonAndAdamW


def build_optimizer(model: nn.Module, recipe: Recipe, *, engine: Engine) -> AnyOptimizer:
    """Build the recipe's optimizer for a placed model or stacked models; the learning rate is set before every step.

    SGDW and Muon exempt norms and biases from weight decay.
    """
    engine = engine_for(recipe, engine)
    is_fused = engine.optimizer == "fused"
    implementation: dict[str, Any] = {"fused": is_fused, "foreach": not is_fused}
    learning_rate: float | Tensor = recipe.learning_rate
    if engine.graph:
        learning_rate = torch.tensor(recipe.learning_rate, device=engine.device)
    of_sgd: dict[str, Any] = {"lr": learning_rate, "momentum": recipe.momentum, "nesterov": recipe.momentum > 0}
    optimizer_class: type[torch.optim.Adam]
    match recipe.optimizer:
        case "sgd":
            groups = groups_by_depth(model, recipe)
            return torch.optim.SGD(groups, weight_decay=recipe.weight_decay, **of_sgd, **implementation)
        case "sgdw":
            weights, others = split_parameters(model)
            decayed = [weight.parameter for weight in weights]
            by_decay = ((decayed, recipe.weight_decay), (others, 0.0))
            return SGDW(
                [{"params": parameters, "decoupled_decay": decay} for parameters, decay in by_decay if parameters],
                **of_sgd,
                **implementation,
            )
        case "muon":
            return MuonAndAdamW(*split_parameters(model), recipe, **implementation)
        case "adam":
            optimizer_class = torch.optim.Adam
        case "adamw":
            optimizer_class = torch.optim.AdamW
        case _:
            assert_never(recipe.optimizer)
    return optimizer_class(
        groups_by_depth(model, recipe),
        lr=learning_rate,
        weight_decay=recipe.weight_decay,
        capturable=engine.graph,
        **implementation,
    )


RATE_FACTOR = "rate_factor"
"""Key of a parameter group: its learning rate as a multiple of the recipe's."""


def groups_by_depth(model: nn.Module, recipe: Recipe) -> Any:
    """Return the parameters of a model, or with `stage_decay`, a group for each module of the tail of a backbone.

    The last module, which is the head, has the full rate, and each module in front of it the rate of the next one times
    `stage_decay`. Modules without parameters to train do not count. Source: Howard and Ruder, Universal Language Model
    Fine-tuning for Text Classification, 2018, section 3.2, where the factor is 1 / 2.6.
    """
    if recipe.stage_decay == 1.0:
        return [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = []
    for module in reversed(list(model.children())):
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if parameters:
            groups.append({"params": parameters, RATE_FACTOR: recipe.stage_decay ** len(groups)})
    return groups


def engine_for(recipe: Recipe, engine: Engine) -> Engine:
    """Return the engine, without its CUDA graph if the recipe's optimizer cannot be captured in one.

    torch.optim.Muon cannot, because it reads its learning rate on the CPU.
    """
    return replace(engine, graph=False) if recipe.optimizer == "muon" else engine


def split_parameters(model: nn.Module) -> tuple[list[MatrixWeight], list[Tensor]]:
    """Return the weights of convolutions and linear layers, and all other parameters, which are norms and biases.

    Stacked models have the same layers, with more groups or more matrices.
    """
    weights = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            weights.append(MatrixWeight(module.weight, module.groups))
        elif isinstance(module, nn.Linear):
            weights.append(MatrixWeight(module.weight, 1))
        elif isinstance(module, LinearEach):
            weights.append(MatrixWeight(module.weight, module.num_models))
    known = {id(weight.parameter) for weight in weights}
    return weights, [parameter for parameter in model.parameters() if id(parameter) not in known]


def set_learning_rate(optimizer: AnyOptimizer, learning_rate: float) -> None:
    """Set the learning rate of the next step; in place if it is a tensor, as a captured step requires."""
    for group in optimizer.param_groups:
        rate = learning_rate * group.get(RATE_FACTOR, 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
