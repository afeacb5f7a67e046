import re
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from typing import Any

import pytest
import torch
from hypothesis import given

from tests.strategies import ALL_SPACES, BUNDLED, networks, random_candidates
from tuner.architecture import layer_kinds
from tuner.architecture.blocks import PlainBlock, ResidualBlock
from tuner.architecture.cost import network_cost
from tuner.architecture.factory import build_model
from tuner.architecture.parts import Items, Part, layers_of
from tuner.architecture.shapes import Shape
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.trace import resolve, trace
from tuner.data.resident import ResidentData
from tuner.space.sampling import candidate_from, first_params
from tuner.space.schema import SearchSpace
from tuner.training.candidate import Candidate, Recipe
from tuner.training.engine import Engine
from tuner.training.loop import train

VALID = PlainBlock(8, padding="valid")
SAME = PlainBlock(8, padding="same")


def test_the_articles_network_has_the_articles_numbers() -> None:
    (params,) = first_params(BUNDLED["article"])
    architecture = candidate_from(params, BUNDLED["article"], InputSpec(1, 28, 28, 10), epochs=1).architecture
    parts = trace(architecture)
    layers = layers_of(parts)
    assert [(layer.kind, layer.output_shape, layer.arithmetic) for layer in layers] == [
        ("Conv2d", (16, 26, 26), "28-3+1=26"),
        ("ReLU", (16, 26, 26), ""),
        ("MaxPool2d", (16, 13, 13), "(26-2)//2+1=13"),
        ("Conv2d", (32, 11, 11), "13-3+1=11"),
        ("ReLU", (32, 11, 11), ""),
        ("MaxPool2d", (32, 5, 5), "(11-2)//2+1=5"),
        ("Flatten", (800,), "32*5*5=800"),
        ("Linear", (10,), ""),
    ]
    cost = network_cost(parts)
    # 16*(9+1) + 32*(16*9+1) + 10*(800+1); the convolutions' and the head's multiply-adds, twice.
    assert cost.num_parameters == 160 + 4_640 + 8_010 == 12_810
    assert cost.flops == 2 * (9 * 16 * 26 * 26 + 144 * 32 * 11 * 11 + 800 * 10)
    assert [(part.name, part.main) for part in parts] == [
        ("block 1", layers[:3]),
        ("block 2", layers[3:6]),
        ("head", layers[6:]),
    ]


@pytest.mark.parametrize(
    ("block", "shape", "changes"),
    [
        # Nothing to cut.
        (replace(VALID, kernel_size=3), (1, 3, 9), {}),
        (replace(VALID, kernel_size=5, pooling="max"), (1, 6, 6), {}),
        (replace(SAME, kernel_size=11), (1, 2, 2), {}),
        # A valid kernel is cut to the smaller side.
        (replace(VALID, kernel_size=5), (1, 4, 9), {"kernel_size": 4}),
        (replace(VALID, kernel_size=5), (1, 9, 2), {"kernel_size": 2}),
        # One pixel: a kernel of 1, for which valid and same are the same.
        (replace(VALID, kernel_size=5), (1, 1, 9), {"kernel_size": 1, "padding": "same"}),
        (replace(VALID, kernel_size=1), (1, 9, 9), {"padding": "same"}),
        # A pooling window is cut to what leaves the convolution: 6-5+1 = 2.
        (
            replace(VALID, kernel_size=5, pooling="max", pool_size=3, pool_stride=3),
            (1, 6, 6),
            {"pool_size": 2, "pool_stride": 2},
        ),
        (
            replace(SAME, pooling="average", pool_size=4, pool_stride=1),
            (1, 3, 9),
            {"pool_size": 3, "pool_stride": 1},
        ),
        # (9+2-3)//4+1 = 3 pixels after the stride.
        (
            replace(SAME, stride=4, pooling="max", pool_size=5, pool_stride=4),
            (1, 9, 9),
            {"pool_size": 3, "pool_stride": 3},
        ),
        # A stride beyond the window stays where the window was not cut.
        (replace(SAME, pooling="max", pool_size=2, pool_stride=5), (1, 9, 9), {}),
        # One pixel is left: no pooling, and its settings take their defaults.
        (
            replace(VALID, kernel_size=9, pooling="max", pool_size=3, pool_stride=3),
            (1, 5, 5),
            {"kernel_size": 5, "pooling": "none", "pool_size": 2, "pool_stride": 2},
        ),
        (
            replace(SAME, pooling="max", pool_size=1, pool_stride=3),
            (1, 9, 9),
            {"pooling": "none", "pool_size": 2, "pool_stride": 2},
        ),
        (replace(SAME, pooling="max"), (1, 1, 9), {"pooling": "none"}),
        (replace(SAME, pooling="none", pool_size=5, pool_stride=4), (1, 9, 9), {"pool_size": 2, "pool_stride": 2}),
        # A stride that leaves one pixel anyway takes one value: 1 of a convolution, the window of a pool.
        (replace(VALID, stride=2), (1, 3, 3), {"stride": 1}),
        (replace(VALID, stride=2), (1, 3, 5), {}),
        (replace(SAME, stride=2), (1, 2, 2), {}),
        (replace(SAME, pooling="max", pool_size=3, pool_stride=1), (1, 3, 3), {"pool_stride": 3}),
        (replace(SAME, pooling="max", pool_size=3, pool_stride=1), (1, 3, 4), {}),
    ],
)
def test_a_block_that_does_not_fit_is_cut_by_the_written_rule(
    block: PlainBlock, shape: tuple[int, int, int], changes: dict[str, Any]
) -> None:
    assert block.resolve(shape) == replace(block, **changes)


def test_the_next_block_is_cut_to_what_the_resolved_one_leaves() -> None:
    # 8-7+1 = 2 after the first; the second's kernel is cut to 2 and leaves one pixel; the third's to 1.
    blocks = tuple(PlainBlock(4, kernel_size=7, padding="valid") for _ in range(3))
    resolved = resolve(Architecture(InputSpec(1, 8, 8, 10), blocks, Head(pooling="average")))
    assert [block.kernel_size for block in resolved.blocks] == [7, 2, 1]
    assert resolved.head == Head(pooling="flatten")


@pytest.mark.parametrize(
    ("head", "side", "expected"),
    [
        (Head(pooling="average"), 4, Head(pooling="average")),
        (Head(pooling="average"), 1, Head(pooling="flatten")),
        (Head(hidden_features=0, activation="tanh"), 4, Head()),
        (Head(hidden_features=8, activation="tanh"), 4, Head(hidden_features=8, activation="tanh")),
    ],
)
def test_what_has_no_effect_in_the_head_takes_its_default(head: Head, side: int, expected: Head) -> None:
    assert resolve(Architecture(InputSpec(1, side, side, 10), (PlainBlock(4),), head)).head == expected


def fingerprint(architecture: Architecture) -> str:
    return Candidate(architecture, Recipe()).fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (replace(VALID, kernel_size=5), replace(VALID, kernel_size=3)),
        (replace(VALID, kernel_size=1), replace(SAME, kernel_size=1)),
        (replace(VALID, kernel_size=3, pooling="max"), replace(VALID, kernel_size=5, pooling="average")),
        (
            replace(SAME, pooling="max", pool_size=5, pool_stride=5),
            replace(SAME, pooling="max", pool_size=3, pool_stride=3),
        ),
        (replace(SAME, pool_size=3), replace(SAME, pool_stride=5)),
        (VALID, replace(VALID, stride=2)),
        (
            replace(SAME, pooling="max", pool_size=3, pool_stride=1),
            replace(SAME, pooling="max", pool_size=3, pool_stride=2),
        ),
    ],
)
def test_blocks_that_build_one_network_resolve_to_one_value_and_one_fingerprint(
    one: PlainBlock, other: PlainBlock
) -> None:
    first, second = (Architecture(InputSpec(1, 3, 3, 10), (block,), Head()) for block in (one, other))
    assert first != second
    assert resolve(first) == resolve(second)
    assert fingerprint(first) == fingerprint(second)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (VALID, replace(VALID, stride=2)),
        (replace(SAME, pooling="max", pool_size=3, pool_stride=1), replace(SAME, pooling="max", pool_size=3)),
    ],
)
def test_a_stride_that_leaves_one_pixel_changes_no_logit(one: PlainBlock, other: PlainBlock) -> None:
    models = [build_model(Architecture(InputSpec(1, 3, 3, 10), (block,), Head())) for block in (one, other)]
    models[1].load_state_dict(models[0].state_dict())
    images_NCHW = torch.randn(3, 1, 3, 3)
    assert torch.equal(models[0](images_NCHW), models[1](images_NCHW))


@given(networks(), networks())
def test_two_fingerprints_are_equal_only_for_equal_networks(one: Architecture, other: Architecture) -> None:
    assert (fingerprint(one) == fingerprint(other)) == (one == other)


@pytest.mark.parametrize(
    "other",
    [
        Architecture(InputSpec(1, 8, 8, 11), (SAME,), Head()),
        Architecture(InputSpec(1, 8, 9, 10), (SAME,), Head()),
        Architecture(InputSpec(1, 8, 8, 10), (SAME, SAME), Head()),
        Architecture(InputSpec(1, 8, 8, 10), (VALID,), Head()),
        Architecture(InputSpec(1, 8, 8, 10), (replace(SAME, activation="tanh"),), Head()),
        Architecture(InputSpec(1, 8, 8, 10), (replace(SAME, dropout=0.1),), Head()),
        Architecture(InputSpec(1, 8, 8, 10), (replace(SAME, normalization="batch"),), Head()),
        Architecture(InputSpec(1, 8, 8, 10), (SAME,), Head(pooling="average")),
        Architecture(InputSpec(1, 8, 8, 10), (SAME,), Head(dropout=0.1)),
    ],
)
def test_another_network_has_another_fingerprint(other: Architecture) -> None:
    assert fingerprint(other) != fingerprint(Architecture(InputSpec(1, 8, 8, 10), (SAME,), Head()))


@given(networks(max_side=224))
def test_a_resolved_architecture_stays_as_it_is_and_survives_json(architecture: Architecture) -> None:
    assert resolve(architecture) == architecture
    assert Architecture.from_json(architecture.to_json()) == architecture


NUM_BY_ARITHMETIC, NUM_ON_META, NUM_TRAINED = 100_000, 2_000, 200


def shared_out(total: int, *, seed: int, max_side: int = 224) -> Iterator[Candidate]:
    """So many samples, shared out over the bundled spaces."""
    for space in BUNDLED.values():
        yield from random_candidates(space, -(-total // len(BUNDLED)), seed=seed, max_side=max_side)


def output_of(path: Items, shape: Shape) -> Shape:
    """The shape that a path makes of another; each step must take what the last one gave, and paths must join."""
    for step in path:
        assert step.input_shape == shape, step
        if isinstance(step, Part):
            main, shortcut = output_of(step.main, shape), output_of(step.shortcut, shape)
            if step.join != "none":
                assert main == (shortcut if step.join == "add" else (shortcut[0], 1, 1)), step
            assert step.output_shape == (main if step.join == "none" else shortcut), step
        shape = step.output_shape
    return shape


def check_by_arithmetic(candidate: Candidate) -> None:
    architecture = candidate.architecture
    parts = trace(architecture)
    assert output_of(parts, architecture.input_shape) == (architecture.num_classes,), architecture
    assert all(side >= 1 for layer in layers_of(parts) for side in layer.output_shape), architecture
    assert network_cost(parts).num_parameters > 0
    assert resolve(architecture) == architecture


@given(networks())
def test_each_layer_takes_what_the_last_one_gave_and_both_paths_of_a_join_agree(architecture: Architecture) -> None:
    check_by_arithmetic(Candidate(architecture, Recipe()))


def test_a_network_whose_paths_cannot_be_joined_fails_the_check() -> None:
    block = ResidualBlock(4)
    object.__setattr__(block, "kernel_size", 4)  # since such a block cannot be made
    with pytest.raises(AssertionError, match=re.escape("(4, 9, 9) == (4, 10, 10)")):
        check_by_arithmetic(Candidate(Architecture(InputSpec(4, 8, 8, 10), (block,), Head()), Recipe()))


MAP = (4, 8, 8)
WIDER = layer_kinds.convolution(MAP, out_channels=8, kernel_size=3, padding=1)
SMALLER = layer_kinds.convolution(MAP, out_channels=4, kernel_size=3)
MEAN = layer_kinds.global_average(MAP)
MEAN_OF_WIDER = layer_kinds.convolution(MEAN.output_shape, out_channels=8, kernel_size=1)


@pytest.mark.parametrize(
    "path",
    [
        [WIDER, WIDER],
        [Part("block 1", (WIDER,)), Part("block 2", (SMALLER,))],
        [Part("residual", (WIDER,), join="add")],
        [Part("residual", (SMALLER,), join="add")],
        [Part("residual", (WIDER,), (SMALLER,), join="add")],
        [Part("excitation", (MEAN, MEAN_OF_WIDER), join="multiply")],
        [Part("excitation", (SMALLER,), join="multiply")],
    ],
)
def test_a_path_whose_shapes_do_not_agree_fails_the_check(path: Items) -> None:
    with pytest.raises(AssertionError):
        output_of(path, MAP)


@pytest.mark.slow
def test_of_a_hundred_thousand_samples_of_the_bundled_spaces_every_one_fits() -> None:
    num_checked = 0
    for candidate in shared_out(NUM_BY_ARITHMETIC, seed=1):
        check_by_arithmetic(candidate)
        num_checked += 1
    assert num_checked >= NUM_BY_ARITHMETIC


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(ALL_SPACES) - set(BUNDLED)))
def test_every_sample_of_a_wide_space_fits(name: str) -> None:
    for candidate in random_candidates(ALL_SPACES[name], 5_000, seed=2):
        check_by_arithmetic(candidate)


@pytest.mark.slow
def test_two_thousand_samples_give_the_traced_shape_on_the_meta_device() -> None:
    for candidate in shared_out(NUM_ON_META, seed=3):
        architecture = candidate.architecture
        with torch.device("meta"):
            logits_NK = build_model(architecture)(torch.empty(2, *architecture.input_shape))
        assert tuple(logits_NK.shape) == (2, architecture.num_classes), architecture


def noise(input_spec: InputSpec, num_images: int) -> ResidentData:
    """Images of noise; the last one is the validation part."""
    generator = torch.Generator().manual_seed(0)
    images_NCHW = torch.randint(0, 256, (num_images, *input_spec.shape), generator=generator, dtype=torch.uint8)
    return ResidentData(
        name="noise",
        digest="",
        class_names=tuple(map(str, range(input_spec.num_classes))),
        images_NCHW=images_NCHW,
        labels_N=torch.arange(num_images) % input_spec.num_classes,
        train_indices_N=torch.arange(num_images - 1),
        validation_indices_N=torch.tensor([num_images - 1]),
        mean=(0.5,) * input_spec.channels,
        std=(0.3,) * input_spec.channels,
    )


def allowed(space: SearchSpace, count: int, *, seed: int, max_side: int) -> Iterator[Candidate]:
    """So many samples that the space's own limit lets train; the largest picture is that of the second."""
    limit = space.max_parameters or inf
    for number in range(count):
        for attempt in range(100):
            *_, candidate = random_candidates(space, min(number + 1, 3), seed=100 * number + attempt, max_side=max_side)
            if network_cost(trace(candidate.architecture)).num_parameters <= limit:
                yield candidate
                break


@pytest.mark.slow
def test_two_hundred_samples_train_on_batches_of_two_and_of_one() -> None:
    # The second sample of each is as large as it may be; of most a small picture says as much in less time.
    candidates = [
        candidate
        for space in BUNDLED.values()
        for count, max_side in ((2, 224), (NUM_TRAINED // len(BUNDLED) - 2, 48))
        for candidate in allowed(space, count, seed=4, max_side=max_side)
    ]
    assert len(candidates) == NUM_TRAINED
    assert max(max(candidate.architecture.input_shape) for candidate in candidates) == 224
    for candidate in candidates:
        recipe = replace(candidate.recipe, batch_size=2, epochs=1, learning_rate=1e-4)
        data = noise(candidate.architecture.input, num_images=4)
        (result,) = train(replace(candidate, recipe=recipe), data, engine=Engine("cpu"), seed=0)
        assert result.epoch == 1, candidate


def test_a_network_in_one_line_names_what_is_not_usual() -> None:
    usual = PlainBlock(8, pooling="max", pool_size=2, pool_stride=2)
    unusual = PlainBlock(
        32, 5, 2, "valid", "batch", "leaky_relu", pooling="average", pool_size=3, pool_stride=2, dropout=0.125
    )
    head = Head("average", hidden_features=64, activation="tanh", dropout=0.5)
    assert str(Architecture(InputSpec(1, 28, 28, 10), (usual, unusual), head)) == (
        "8 k3 relu max2 | 32 k5 s2 valid bn leaky_relu average3s2 d0.12 | average 64 tanh d0.5 10"
    )
