"""The baseline of a study: the configuration that a winner must beat, made smaller where a limit requires it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from math import sqrt
from typing import Any, Literal

from tuner.architecture.any_architecture import cost_of, resolve_any
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.blocks import ActivationBlock, Block
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.errors import SpaceError
from tuner.space.backbone_space import backbone_given, backbone_network
from tuner.space.parameter import Parameter, Rate
from tuner.space.sampling import Params, params_of
from tuner.space.schema import Configuration, SearchSpace
from tuner.space.stage_blocks import stage_blocks, stages_given
from tuner.training.candidate import Candidate, resolve_candidate
from tuner.training.released_defaults import RELEASED_DEFAULTS

Origin = Literal["space", "family"]
Limit = Literal["max_parameters", "memory"]
MIN_BATCH_SIZE = 8
"""Smallest batch size, since batch statistics of smaller ones are too noisy. After that, channels are halved."""

PLAIN_DEFAULT = Configuration(
    block=[
        {
            "out_channels": out_channels,
            "kernel_size": 3,
            "stride": 1,
            "padding": "same",
            "normalization": "batch",
            "activation": "relu",
            "pooling": "max",
            "pool_size": 2,
            "pool_stride": 2,
            "dropout": 0.0,
        }
        for out_channels in (32, 64)
    ],
    head={"pooling": "flatten", "hidden_features": 128, "activation": "relu", "dropout": 0.2},
    recipe={
        **{name: value for name, value in RELEASED_DEFAULTS["recipe"].items() if name != "epochs"},
        "optimizer": "adamw",
        "learning_rate": 3e-3,
        "schedule": "one_cycle",
        "weight_decay": 1e-2,
    },
)
"""Baseline of a space of plain blocks that has no first configuration."""


@dataclass(frozen=True)
class Baseline:
    """A candidate to compare with.

    params: in the space's names; None if the candidate is not in the space. origin: whether it is the first
    configuration of the space, or the default of its family. changes: descriptions of what was changed so that it stays
    within `limits`, which are those that required a change.
    """

    candidate: Candidate
    params: Params | None
    origin: Origin
    changes: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the object that is stored with its trial, under `baseline`."""
        limits = {"limits": list(self.limits)} if self.limits else {}
        return {"origin": self.origin, "changes": list(self.changes), **limits}


@dataclass(frozen=True)
class Given:
    """A configuration of [[first]] in the space's names. changes: what was changed and why, in words; empty if none."""

    params: Params
    changes: str = ""


def baselines(space: SearchSpace, input_spec: InputSpec, *, epochs: int) -> Iterator[Baseline]:
    """The baseline of a space as it is given, then versions of it that take less and less memory.

    A baseline with more parameters than the space allows has its channels halved until it has no more. After that, for
    memory, first the batch is halved, down to MIN_BATCH_SIZE, and the learning rate follows it: in proportion for SGD
    and SGDW, by the square root for Adam, AdamW and Muon. Then the channels of every block are halved, and in the end
    the batch again. Source: Goyal et al., Accurate, Large Minibatch SGD, 2017; Malladi et al., On the SDEs and Scaling
    Rules for Adaptive Gradient Algorithms, 2022.
    """
    origin: Origin = "space" if space.first else "family"
    configuration = space.first[0] if space.first else _default_of(space)
    given = candidate_of(configuration, space, input_spec, epochs=epochs)
    allowed = _with_allowed_parameters(given, space.max_parameters)
    for candidate in _smaller_and_smaller(allowed):
        reasons: dict[Limit, bool] = {"max_parameters": allowed != given, "memory": candidate != allowed}
        yield Baseline(
            resolve_candidate(candidate),
            _params_in(space, candidate, configuration, given),
            origin,
            tuple(_differences(given, candidate)),
            tuple(limit for limit, is_reason in reasons.items() if is_reason),
        )


def smaller_batches(
    configuration: Configuration, space: SearchSpace, input_spec: InputSpec, *, epochs: int
) -> Iterator[Given]:
    """A configuration to try first, then versions of it with half the batch of the one before, as of a baseline.

    Ends before the first version that is not in the space.
    """
    yield Given(params_of(configuration, space, space.name))
    given = candidate = candidate_of(configuration, space, input_spec, epochs=epochs)
    while candidate.recipe.batch_size > MIN_BATCH_SIZE:
        candidate = _with_half_the_batch(candidate)
        params = _params_in(space, candidate, configuration, given)
        if params is None:
            return
        yield Given(params, f"{' and '.join(_differences(given, candidate))} {REASONS['memory']}")


def candidate_of(configuration: Configuration, space: SearchSpace, input_spec: InputSpec, *, epochs: int) -> Candidate:
    """Return the candidate of a configuration, even if it is not in the space; missing values are defaults."""
    optimizer = _given(configuration.recipe, "optimizer", space.recipe.optimizer)
    recipe = {
        name: _given(configuration.recipe, name, _of_optimizer(parameter, optimizer))
        for name, parameter in space.recipe
    }
    head = {name: _given(configuration.head, name, parameter) for name, parameter in space.head}
    architecture: dict[str, Any]
    if space.backbone is not None:
        given = backbone_given(configuration.backbone or {}, space.name)
        values = {name: _given(given, name, parameter) for name, parameter in space.backbone.own_parameters()}
        architecture = backbone_network(values, space.weights, Head(**head), input_spec).to_json()
    else:
        blocks = list(_blocks_of(configuration, space))
        architecture = {"input": asdict(input_spec), "blocks": blocks, "head": head}
    return Candidate.from_json({"architecture": architecture, "recipe": {"epochs": epochs, **recipe}})


def _blocks_of(configuration: Configuration, space: SearchSpace) -> Iterator[dict[str, Any]]:
    if space.block is None:
        defaults = {name: parameter.default for name, parameter in space.parameters.items()}
        given = stages_given(configuration, space, space.name)
        yield from map(asdict, stage_blocks({**defaults, **given}, space))
    else:
        for block in configuration.block or []:
            yield {name: _given(block, name, parameter) for name, parameter in space.block}


def _default_of(space: SearchSpace) -> Configuration:
    """What a space is compared with that gives no first configuration: plain blocks, or else its own defaults."""
    if space.backbone is not None:
        return Configuration(backbone={})
    return PLAIN_DEFAULT if space.stage is None else Configuration(stage=[{}] * space.stage.num_stages.default)


def describe_baseline(baseline: Mapping[str, Any]) -> str:
    """A stored baseline in words: `the first configuration, with batch_size 32 instead of 64 to fit into memory`."""
    if not baseline["changes"]:
        return NAMES[baseline["origin"]]
    limits = baseline.get("limits", ["memory"])  # the only limit when studies did not store them yet
    reasons = " and ".join(REASONS[limit] for limit in limits)
    return f"{NAMES[baseline['origin']]}, with {' and '.join(baseline['changes'])} {reasons}"


REASONS: Mapping[Limit, str] = {"max_parameters": "to stay within max_parameters", "memory": "to fit into memory"}
NAMES: Mapping[str, str] = {"space": "the first configuration", "family": "the default configuration of its family"}
"""Descriptions of a baseline by its origin."""


def _with_allowed_parameters(candidate: Candidate, max_parameters: int | None) -> Candidate:
    """Return the candidate with its channels halved until it has no more parameters, or one channel in each block."""
    if max_parameters is None:
        return candidate
    while _num_parameters(candidate) > max_parameters and max(_channels(candidate), default=1) > 1:
        candidate = _with_half_the_channels(candidate)
    return candidate


def _num_parameters(candidate: Candidate) -> int:
    return cost_of(resolve_any(candidate.architecture)).num_parameters


def _smaller_and_smaller(candidate: Candidate) -> Iterator[Candidate]:
    yield candidate
    while candidate.recipe.batch_size > MIN_BATCH_SIZE:
        candidate = _with_half_the_batch(candidate)
        yield candidate
    while max(_channels(candidate), default=1) > 1:
        candidate = _with_half_the_channels(candidate)
        yield candidate
    while candidate.recipe.batch_size > 1:
        candidate = _with_half_the_batch(candidate)
        yield candidate


def _with_half_the_batch(candidate: Candidate) -> Candidate:
    recipe = candidate.recipe
    batch_size = recipe.batch_size // 2
    factor = batch_size / recipe.batch_size
    factor = factor if recipe.optimizer in ("sgd", "sgdw") else sqrt(factor)
    return replace(
        candidate, recipe=replace(recipe, batch_size=batch_size, learning_rate=recipe.learning_rate * factor)
    )


def _with_half_the_channels(candidate: Candidate) -> Candidate:
    architecture = candidate.architecture
    assert isinstance(architecture, Architecture)
    return replace(candidate, architecture=replace(architecture, blocks=tuple(map(_halved, architecture.blocks))))


def _halved(block: Block) -> Block:
    return block if isinstance(block, ActivationBlock) else replace(block, out_channels=max(1, block.out_channels // 2))


def _channels(candidate: Candidate) -> list[int]:
    """Output channels of every block that has a number of its own; a backbone has none that can be changed."""
    architecture = candidate.architecture
    if isinstance(architecture, BackboneNetwork):
        return []
    return [block.out_channels for block in architecture.blocks if not isinstance(block, ActivationBlock)]


def _differences(given: Candidate, candidate: Candidate) -> Iterator[str]:
    before, after = given.recipe, candidate.recipe
    if after.batch_size != before.batch_size:
        yield f"batch_size {after.batch_size} instead of {before.batch_size}"
        yield f"learning_rate {after.learning_rate:.3g} instead of {before.learning_rate:.3g}"
    channels = [_channels(one) for one in (given, candidate)]
    if channels[0] != channels[1]:
        yield f"out_channels {_listed(channels[1])} instead of {_listed(channels[0])}"


def _listed(numbers: list[int]) -> str:
    return "-".join(map(str, numbers))


def _params_in(
    space: SearchSpace, candidate: Candidate, configuration: Configuration, given: Candidate
) -> Params | None:
    """The parameters of a candidate in the space's names; None where it is not in the space.

    `given` is the candidate of the configuration that it was made of. Of a network in stages with other channels none
    are known: the widths follow from the growth.
    """
    recipe = {name: getattr(candidate.recipe, name) for name, _ in space.recipe}
    if space.block is not None:
        assert isinstance(candidate.architecture, Architecture)
        configuration = Configuration(
            block=[{name: getattr(block, name) for name, _ in space.block} for block in candidate.architecture.blocks],
            head={name: getattr(candidate.architecture.head, name) for name, _ in space.head},
            recipe=recipe,
        )
    elif candidate.architecture != given.architecture:
        return None
    else:
        configuration = configuration.model_copy(update={"recipe": recipe})
    try:
        return params_of(configuration, space, space.name)
    except SpaceError:
        return None


def _given(values: Mapping[str, Any], name: str, parameter: Parameter[Any]) -> Any:
    if name in values:  # a table of one rate for each optimizer has no default of its own
        return values[name]
    return parameter.default


def _of_optimizer(parameter: Parameter[Any], optimizer: str) -> Parameter[Any]:
    own = parameter.by_optimizer if isinstance(parameter, Rate) else {}
    return own.get(optimizer, parameter)
