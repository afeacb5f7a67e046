"""Candidates for property tests, all derived from the schema of a search space: no parameter is written by hand."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tuner.architecture.blocks import Block, PlainBlock
from tuner.architecture.blocks.fields import (
    Activation,
    Count,
    DropoutRate,
    Normalization,
    OddWindow,
    Padding,
    Pooling,
    Window,
)
from tuner.architecture.blocks.inverted_residual import Expansion, Reduction
from tuner.architecture.blocks.residual import Order, Shortcut
from tuner.architecture.spec import Architecture, Head, HeadPooling, InputSpec
from tuner.architecture.trace import resolve
from tuner.space import stages
from tuner.space.automatic_flip import with_flip
from tuner.space.sampling import Params, candidate_from, distributions
from tuner.space.schema import SearchSpace
from tuner.space.toml_file import bundled_spaces, load_space, parse_space
from tuner.training.candidate import Candidate, ClassWeights, Flip, Optimizer, Schedule

EPOCHS = 3
FAMILIES: tuple[Any, ...] = tuple(get_args(tagged)[0] for tagged in get_args(get_args(Block)[0]))


def make_space(*, name: str = "made", **tables: Any) -> SearchSpace:
    """A space as a TOML file would say it; what is required and not given gets one small value."""
    required = {"block": {"out_channels": 4}, "recipe": {"learning_rate": 1e-3}}
    merged = {key: {**required.get(key, {}), **tables.get(key, {})} for key in required}
    return parse_space({"name": name, **tables, **merged}, origin=name)


def wide_space(name: str, *, kernel_size: Any, padding: Any) -> SearchSpace:
    """Every value that the schema knows, and windows far larger than small feature maps."""
    return make_space(
        name=name,
        network={"num_blocks": {"low": 1, "high": 6}},
        block={
            "out_channels": {"low": 1, "high": 24},
            "kernel_size": kernel_size,
            "stride": {"low": 1, "high": 4},
            "padding": padding,
            "normalization": list(get_args(Normalization)),
            "activation": list(get_args(Activation)),
            "pooling": list(get_args(Pooling)),
            "pool_size": {"low": 1, "high": 5},
            "pool_stride": {"low": 1, "high": 5},
            "dropout": [0.0, 0.3],
        },
        head={
            "pooling": list(get_args(HeadPooling)),
            "hidden_features": {"low": 0, "high": 16, "step": 4},
            "activation": list(get_args(Activation)),
            "dropout": [0.0, 0.5],
        },
        recipe={
            "optimizer": list(get_args(Optimizer)),
            "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "schedule": list(get_args(Schedule)),
            "batch_size": {"low": 1, "high": 64, "log": True},
            "weight_decay": {"low": 0.0, "high": 0.1},
            "momentum": {"low": 0.0, "high": 0.9, "step": 0.3},
            "label_smoothing": [0.0, 0.1],
            "warm_up": {"low": 0.0, "high": 0.5},
            "ema": [0.0, 0.9],
            "class_weights": list(get_args(ClassWeights)),
            "flip": list(get_args(Flip)),
            "translate": {"low": 0.0, "high": 0.5},
            "cutout": {"low": 0.0, "high": 1.0},
            "mixup": [0.0, 0.2],
            "cutmix": [0.0, 1.0],
            "brightness": {"low": 0.0, "high": 1.0},
            "contrast": {"low": 0.0, "high": 1.0},
        },
    )


BUNDLED = {
    name: with_flip(space, "horizontal")
    for name, space in ((name, load_space(name)) for name in bundled_spaces())
    if space.backbone is None
}
"""The bundled spaces of traced networks. The one of pretrained networks is in tests/space/test_backbone_space.py."""
WIDE = wide_space("wide", kernel_size={"low": 1, "high": 11, "step": 2}, padding=list(get_args(Padding)))
WIDE_VALID = wide_space("wide-valid", kernel_size={"low": 1, "high": 11}, padding="valid")
WIDE_STAGES = parse_space(
    {
        "name": "wide-stages",
        "stem": {"out_channels": {"low": 1, "high": 12}, "pooling": list(get_args(Pooling))},
        "stage": {
            "num_stages": {"low": 1, "high": 3},
            "family": list(stages.FAMILIES),
            "num_blocks": {"low": 1, "high": 2},
            "growth": {"low": 0.5, "high": 1.5},
            "stride": {"low": 1, "high": 3},
            "first_growth": [1.0, 2.0],
            "first_stride": [1, 2],
            "pooling": list(get_args(Pooling)),
            "last_channels": [0, 5],
        },
        "plain": {"kernel_size": [1, 3, 5], "normalization": list(get_args(Normalization)), "dropout": [0.0, 0.3]},
        "residual": {
            "kernel_size": [1, 3, 5],
            "normalization": list(get_args(Normalization)),
            "activation": list(get_args(Activation)),
            "order": list(get_args(Order)),
            "shortcut": list(get_args(Shortcut)),
            "dropout": [0.0, 0.3],
        },
        "inverted_residual": {
            "expansion": {"low": 1, "high": 4},
            "kernel_size": [1, 3, 5],
            "normalization": list(get_args(Normalization)),
            "activation": list(get_args(Activation)),
            "squeeze": {"low": 0, "high": 8},
        },
        "head": {"pooling": list(get_args(HeadPooling))},
        "recipe": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "batch_size": [1, 16]},
    },
    origin="wide-stages",
)
SMALL = {
    **{name: BUNDLED[name] for name in ("article", "cnn")},
    **{space.name: space for space in (WIDE, WIDE_VALID, WIDE_STAGES)},
}
"""Spaces whose networks can be built and trained in a moment."""
ALL_SPACES = {**BUNDLED, **SMALL}


def values_of(distribution: BaseDistribution) -> SearchStrategy[Any]:
    """Everything that Optuna could draw from a distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return st.sampled_from(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is None:
        return st.floats(low, high)
    return st.integers(0, round((high - low) / step)).map(lambda steps: min(high, low + steps * step))


def params_of(space: SearchSpace) -> SearchStrategy[Params]:
    return st.fixed_dictionaries({name: values_of(dist) for name, dist in distributions(space).items()})


def input_specs(*, max_side: int = 40) -> SearchStrategy[InputSpec]:
    """Square and not, one pixel included, grey and in colour."""
    sides = st.integers(1, max_side)
    return st.builds(InputSpec, st.sampled_from([1, 3]), sides, sides, st.integers(2, 12))


def candidates_of(space: SearchSpace, *, max_side: int = 40) -> SearchStrategy[Candidate]:
    return st.builds(
        lambda params, input_spec: candidate_from(params, space, input_spec, epochs=EPOCHS),
        params_of(space),
        input_specs(max_side=max_side),
    )


def candidates(*, max_side: int = 40) -> SearchStrategy[Candidate]:
    return st.sampled_from(list(SMALL.values())).flatmap(lambda space: candidates_of(space, max_side=max_side))


def architectures(*, max_side: int = 40) -> SearchStrategy[Architecture]:
    """Resolved architectures of every small space."""
    return candidates(max_side=max_side).map(lambda candidate: candidate.architecture)


def plain_architectures(*, max_side: int = 40) -> SearchStrategy[Architecture]:
    """Resolved architectures of plain blocks alone."""
    plain = [space for space in SMALL.values() if space.block is not None]
    found = st.sampled_from(plain).flatmap(lambda space: candidates_of(space, max_side=max_side))
    return found.map(lambda candidate: candidate.architecture)


FIELD_VALUES: dict[Any, SearchStrategy[Any]] = {
    Count: st.integers(1, 24),
    OddWindow: st.sampled_from([1, 3, 5, 11]),
    Window: st.integers(1, 5),
    Expansion: st.integers(1, 6),
    Reduction: st.integers(0, 32),
    DropoutRate: st.sampled_from([0.0, 0.3]),
}
"""For each type of a block's field other than a Literal."""


def blocks_of(family: type[Any]) -> SearchStrategy[Any]:
    """Blocks of a family with any value in every field."""
    hints = get_type_hints(family, include_extras=True)
    values = {
        name: st.sampled_from(get_args(hint)) if get_origin(hint) is Literal else FIELD_VALUES[hint]
        for name, hint in hints.items()
    }
    return st.builds(family, **values)


def networks(*, max_side: int = 40) -> SearchStrategy[Architecture]:
    """Resolved architectures of blocks of all families in any order; every second one of the spaces' plain blocks."""
    blocks = st.one_of([blocks_of(family) for family in FAMILIES]).map(odd_when_same)
    head = st.builds(
        Head,
        st.sampled_from(get_args(HeadPooling)),
        st.sampled_from([0, 5]),
        st.sampled_from(get_args(Activation)),
        st.sampled_from([0.0, 0.5]),
    )
    made = st.builds(
        Architecture, input_specs(max_side=max_side), st.lists(blocks, min_size=1, max_size=5).map(tuple), head
    )
    return architectures(max_side=max_side) | made.map(resolve)


def odd_when_same(block: Any) -> Any:
    """Plain blocks with an even kernel have no padding, as the schema has it."""
    return replace(block, padding="valid") if type(block) is PlainBlock and block.kernel_size % 2 == 0 else block


def random_candidates(space: SearchSpace, count: int, *, seed: int, max_side: int = 224) -> Iterator[Candidate]:
    """Many candidates quickly, without hypothesis: sides log-uniform from 1 to `max_side`, both included."""
    generator = Random(seed)
    draws = {name: _drawer(distribution, generator) for name, distribution in distributions(space).items()}
    for number in range(count):
        height, width = (round(max_side ** generator.random()) for _ in range(2))
        if number < 2:
            height = width = (1, max_side)[number]
        input_spec = InputSpec(generator.choice((1, 3)), height, width, generator.choice((2, 10, 100)))
        params = {name: draw() for name, draw in draws.items()}
        yield candidate_from(params, space, input_spec, epochs=EPOCHS)


def _drawer(distribution: BaseDistribution, generator: Random) -> Callable[[], Any]:
    if isinstance(distribution, CategoricalDistribution):
        return lambda: generator.choice(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is None:
        return lambda: generator.uniform(low, high)
    num_steps = round((high - low) / step)
    return lambda: min(high, low + step * generator.randint(0, num_steps))
