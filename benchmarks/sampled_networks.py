"""Networks drawn at random from a search space, with the parameters that have no effect in each of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tuner.architecture.any_architecture import cost_of
from tuner.architecture.cost import Cost
from tuner.architecture.spec import InputSpec
from tuner.errors import SpaceError
from tuner.search.memory_limit import memory_excess
from tuner.search.size_limit import size_excess
from tuner.space.sampling import Params, candidate_from, distributions, random_params
from tuner.space.schema import SearchSpace
from tuner.training.candidate import Candidate

MAX_IN_VAIN = 1_000
"""Number of rejected and repeated draws in a row after which a space is taken to have no more networks."""


@dataclass(frozen=True)
class Drawn:
    """A network to train. without_effect: parameters that could have any other value without changing the candidate."""

    params: Params
    without_effect: tuple[str, ...]
    candidate: Candidate
    cost: Cost


@dataclass(frozen=True)
class Draws:
    """All that was drawn. num_rejected: draws beyond the limits of the space or of the memory."""

    networks: tuple[Drawn, ...]
    num_rejected: int
    num_repeated: int


def draw_networks(
    space: SearchSpace, input_spec: InputSpec, *, epochs: int, num_networks: int, seed: int, step_bytes: float
) -> Draws:
    """Draw different networks uniformly (log-uniformly where the space says so); fewer if the space has no more.

    step_bytes: memory for training one network. Raises SpaceError if no network is within the limits.
    """
    generator = random.Random(seed)
    found: dict[str, Drawn] = {}
    num_rejected = num_repeated = num_in_vain = 0
    while len(found) < num_networks and num_in_vain < MAX_IN_VAIN:
        num_in_vain += 1
        params = random_params(space, generator)
        candidate = candidate_from(params, space, input_spec, epochs=epochs)
        cost = cost_of(candidate.architecture)
        if _excess(cost, candidate, space, step_bytes):
            num_rejected += 1
        elif candidate.fingerprint in found:
            num_repeated += 1
        else:
            num_in_vain = 0
            unused = tuple(parameters_without_effect(params, candidate, space))
            found[candidate.fingerprint] = Drawn(params, unused, candidate, cost)
    if num_networks and not found:
        raise SpaceError(
            f"space {space.name!r}: at least one of {MAX_IN_VAIN:,} networks must be within its max_parameters and the "
            "memory, and none is: raise max_parameters, or lower the channels"
        )
    return Draws(tuple(found.values()), num_rejected, num_repeated)


def parameters_without_effect(params: Params, candidate: Candidate, space: SearchSpace) -> Iterator[str]:
    """Names of the parameters that change nothing, such as those of blocks beyond the depth."""
    input_spec, epochs = candidate.architecture.input, candidate.recipe.epochs
    for name, distribution in distributions(space).items():
        others = (value for value in _tried(distribution) if value != params[name])
        changed = (candidate_from({**params, name: value}, space, input_spec, epochs=epochs) for value in others)
        if all(one == candidate for one in changed):
            yield name


def _tried(distribution: BaseDistribution) -> tuple[Any, ...]:
    """Every choice, or both ends of a range."""
    if isinstance(distribution, CategoricalDistribution):
        return tuple(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.low, distribution.high


def _excess(cost: Cost, candidate: Candidate, space: SearchSpace, step_bytes: float) -> str:
    size = size_excess(cost, space.max_parameters)[1]
    return size or memory_excess(cost, candidate.recipe.batch_size, step_bytes=step_bytes, stream=None)[1]
