"""Refuse configurations to try first that have more parameters than their space allows."""

from __future__ import annotations

from tuner.architecture.any_architecture import cost_of
from tuner.architecture.spec import InputSpec
from tuner.errors import SpaceError
from tuner.space.automatic_flip import choose_flip_without_images
from tuner.space.sampling import candidate_from, first_params
from tuner.space.schema import SearchSpace

SMALLEST_INPUT = InputSpec(channels=1, height=1, width=1, num_classes=2)
"""The input over which a network has the fewest parameters. What is too large over it is too large over any images."""


def refuse_large_first(space: SearchSpace, input_spec: InputSpec, *, origin: str) -> None:
    """Raise SpaceError if a configuration of [[first]] has more parameters over an input than `max_parameters`.

    origin: names the space in the error.
    """
    limit = space.max_parameters
    if limit is None or (space.backbone is not None and not space.weights):
        return  # a backbone is a choice among those whose weights can be had, which are not known yet
    space, _ = choose_flip_without_images(space)  # the flip changes no size
    for number, params in enumerate(first_params(space, origin=origin)):
        candidate = candidate_from(params, space, input_spec, epochs=1)
        num_parameters = cost_of(candidate.architecture).num_parameters
        if num_parameters > limit:
            rule = f"must have at most max_parameters = {limit:,} parameters"
            found = _count_in_words(num_parameters, input_spec)
            raise SpaceError(
                f"{origin}: first.{number}: {rule}, got {found}; raise max_parameters or make the configuration smaller"
            )


def _count_in_words(num_parameters: int, input_spec: InputSpec) -> str:
    if input_spec == SMALLEST_INPUT:
        return f"at least {num_parameters:,} over any images"
    images = "x".join(map(str, input_spec.shape))
    return f"{num_parameters:,} for images of {images} and {input_spec.num_classes:,} classes"
