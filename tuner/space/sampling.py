"""Sample candidates from a search space with an Optuna trial, or build them again from stored parameters."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import BaseTrial, TrialState, create_trial

from tuner.architecture.any_architecture import AnyArchitecture
from tuner.architecture.blocks import Block, PlainBlock
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.errors import SpaceError
from tuner.space.automatic_flip import AUTO
from tuner.space.backbone_space import backbone_given, backbone_network
from tuner.space.parameter import Parameter
from tuner.space.schema import BlockSpace, Configuration, SearchSpace
from tuner.space.stage_blocks import stage_blocks, stages_given
from tuner.training.candidate import Candidate, Recipe, resolve_candidate

Params = dict[str, Any]


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Optuna's distribution of every parameter that is not fixed, the same for every trial."""
    return {name: _distribution(parameter) for name, parameter in space.parameters.items() if not parameter.is_fixed}


def suggest(trial: BaseTrial, space: SearchSpace, input_spec: InputSpec, *, epochs: int) -> Candidate:
    """Sample every parameter of the space with an Optuna trial, and return the resolved candidate."""
    params = {name: _ask(trial, name, distribution) for name, distribution in distributions(space).items()}
    return candidate_from(params, space, input_spec, epochs=epochs)


def random_params(space: SearchSpace, generator: random.Random) -> Params:
    """Parameters drawn uniformly (log-uniformly where the range says so), without a study."""
    return draw(distributions(space), generator)


def draw(ranges: Mapping[str, BaseDistribution], generator: random.Random) -> Params:
    """A value of every distribution, drawn as `random_params` draws them."""
    return {name: _draw(one, generator) for name, one in ranges.items()}


def first_params(space: SearchSpace, *, origin: str = "") -> list[Params]:
    """Return the parameters of each configuration to try first, in the order of the file.

    Raises SpaceError if one is outside the space; `origin` names the file in the error.
    """
    return [
        params_of(configuration, space, f"{origin or space.name}: first.{number}")
        for number, configuration in enumerate(space.first)
    ]


def candidate_from(params: Mapping[str, Any], space: SearchSpace, input_spec: InputSpec, *, epochs: int) -> Candidate:
    """The resolved candidate of a trial's parameters; a pure function, so a stored trial can be built again."""
    values = {
        name: parameter.default if parameter.is_fixed else params[name] for name, parameter in space.parameters.items()
    }
    head = Head(**{name: values[f"head_{name}"] for name in type(space.head).model_fields})
    architecture: AnyArchitecture
    if space.backbone is not None:
        architecture = backbone_network(values, space.weights, head, input_spec)
    else:
        architecture = Architecture(input_spec, _blocks(values, space), head)
    optimizer = values["optimizer"]
    if values["flip"] == AUTO:
        raise SpaceError(f'{space.name}: recipe.flip: "auto" must be decided from the data set before sampling')
    recipe = Recipe(
        epochs=epochs,
        **{
            name: values[name] if name in values else values[f"{name}_{optimizer}"]
            for name in type(space.recipe).model_fields
        },
    )
    return resolve_candidate(Candidate(architecture, recipe))


def _blocks(values: Mapping[str, Any], space: SearchSpace) -> tuple[Block, ...]:
    if space.stage is not None:
        return stage_blocks(values, space)
    return tuple(
        PlainBlock(**{name: _of_block(values, name, number) for name in BlockSpace.model_fields})
        for number in range(1, values["num_blocks"] + 1)
    )


def _ask(trial: BaseTrial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        low, high = distribution.low, distribution.high
        return trial.suggest_int(name, low, high, step=distribution.step, log=distribution.log)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def _of_block(values: Mapping[str, Any], name: str, number: int) -> Any:
    own = f"block{number}_{name}"
    return values[own] if own in values else values[f"block_{name}"]


def _distribution(parameter: Parameter[Any]) -> BaseDistribution:
    if parameter.choices is not None:
        return CategoricalDistribution(parameter.choices)
    assert parameter.low is not None
    assert parameter.high is not None
    if isinstance(parameter.low, int):
        return IntDistribution(parameter.low, parameter.high, log=parameter.log, step=int(parameter.step or 1))
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)


def _draw(distribution: BaseDistribution, generator: random.Random) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return generator.choice(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log:
        drawn = min(high, max(low, math.exp(generator.uniform(math.log(low), math.log(high)))))
        return drawn if isinstance(distribution, FloatDistribution) else round(drawn)
    if step is None:
        return generator.uniform(low, high)
    return min(high, low + step * generator.randrange(round((high - low) / step) + 1))


def params_of(configuration: Configuration, space: SearchSpace, origin: str) -> Params:
    """Flat parameters of a configuration; blocks beyond its depth, which have no effect, repeat its last one.

    Raises SpaceError if a value is outside the space; the error names the configuration by its `origin`.
    """
    given: dict[str, Any] = {}
    if space.backbone is not None:
        given = backbone_given(configuration.backbone or {}, origin)
    elif space.block is None:
        given = stages_given(configuration, space, origin)
    blocks = configuration.block or []
    if space.block is not None:
        given["num_blocks"] = len(blocks)
        for name, parameter in space.block:
            for number in range(1, space.max_blocks + 1):
                block = blocks[min(number, len(blocks)) - 1]
                if name in block:
                    key = f"block_{name}" if parameter.shared else f"block{number}_{name}"
                    if given.setdefault(key, block[name]) != block[name]:
                        both = f"{given[key]!r} and {block[name]!r}"
                        raise SpaceError(
                            f"{origin}: block.{name}: is shared, so all blocks must have the same value, got {both}"
                        )
    unknown = [f"block.{key}" for block in blocks for key in block if key not in BlockSpace.model_fields]
    unknown += [f"head.{key}" for key in configuration.head if key not in type(space.head).model_fields]
    unknown += [f"recipe.{key}" for key in configuration.recipe if key not in type(space.recipe).model_fields]
    if unknown:
        raise SpaceError(f"{origin}: {unknown[0]}: not a parameter of this space; remove it or fix its spelling")
    given |= {f"head_{name}": value for name, value in configuration.head.items()}
    recipe = dict(configuration.recipe)
    optimizer = recipe.get("optimizer", space.recipe.optimizer.default)
    for name, value in recipe.items():
        given[name if name in space.parameters else f"{name}_{optimizer}"] = value
    params: Params = {}
    for name, parameter in space.parameters.items():
        value = given.get(name, parameter.default)
        if not _is_within(parameter, value):
            raise SpaceError(f"{origin}: {name}: must be within the space's {parameter}, got {value!r}")
        if not parameter.is_fixed:
            params[name] = float(value) if isinstance(parameter.default, float) else value
    return params


def _is_within(parameter: Parameter[Any], value: Any) -> bool:
    """Whether a value has the parameter's type, by TOML's rules, and is in its range."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(parameter.default, float):
        if not is_number:
            return False
        value = float(value)
    elif type(value) is not type(parameter.default):
        return False
    try:
        create_trial(
            state=TrialState.RUNNING, params={"value": value}, distributions={"value": _distribution(parameter)}
        )
    except ValueError:  # how Optuna refuses a value outside of its distribution
        return False
    return True
