"""Parts, by hand: their order, the names of their modules, and what they cost."""

from __future__ import annotations

from dataclasses import replace

from tuner.architecture import layer_kinds
from tuner.architecture.cost import Cost, layer_cost, network_cost, part_cost
from tuner.architecture.parts import Part, layers_of, named_layers, steps_of

SHAPE = (4, 5, 5)
FIRST = layer_kinds.convolution(SHAPE, out_channels=8, kernel_size=3, padding=1)
SECOND = layer_kinds.convolution((8, 5, 5), out_channels=4, kernel_size=3, padding=1)
RELU = layer_kinds.layer(SHAPE, "ReLU")
MEAN = layer_kinds.global_average(SHAPE)
GATE = Part("gate", (MEAN, layer_kinds.layer((4, 1, 1), "Sigmoid")), join="multiply")
RESIDUAL = Part("residual", (FIRST, SECOND, GATE), join="add")
PROJECTION = layer_kinds.convolution(SHAPE, out_channels=8, kernel_size=1, bias=False)
PROJECTED = Part("residual", (FIRST,), (PROJECTION,), join="add")
NAMED = Part("block 1", (RESIDUAL, RELU))


def test_parts_without_a_join_are_replaced_by_their_own() -> None:
    assert list(steps_of([NAMED, PROJECTED])) == [RESIDUAL, RELU, PROJECTED]


def test_layers_are_named_as_in_a_state_dict_in_the_order_of_their_modules() -> None:
    assert named_layers([NAMED, PROJECTED]) == {
        "0.main.0": FIRST,
        "0.main.1": SECOND,
        "0.main.2.main.0": MEAN,
        "0.main.2.main.1": GATE.main[1],
        "1": RELU,
        "2.main.0": FIRST,
        "2.shortcut.0": PROJECTION,
    }
    assert layers_of([PROJECTED]) == (FIRST, PROJECTION)


def test_the_shapes_of_a_part() -> None:
    assert (RESIDUAL.input_shape, RESIDUAL.shortcut_shape, RESIDUAL.output_shape) == (SHAPE, SHAPE, SHAPE)
    assert (GATE.input_shape, GATE.shortcut_shape, GATE.output_shape) == (SHAPE, SHAPE, SHAPE)
    assert (PROJECTED.shortcut_shape, PROJECTED.output_shape) == ((8, 5, 5), (8, 5, 5))


def test_a_join_costs_its_output_and_no_parameters() -> None:
    both = layer_cost(FIRST) + layer_cost(PROJECTION)
    assert part_cost(PROJECTED) == replace(both, activations=3 * 200, widest=3 * 200)


def test_what_enters_a_part_waits_for_its_shortcut() -> None:
    # 100 numbers enter; 200 leave the first convolution. The second takes 200 and leaves 100, beside the 100 that wait.
    main = Part("main", (FIRST, SECOND))
    assert part_cost(main).widest == 300
    assert part_cost(replace(main, join="add")).widest == 400


def test_what_leaves_a_main_path_waits_for_the_shortcuts_layers() -> None:
    # The pooling takes 100 numbers for 16 * 3 with their places, beside the 16 that the main path has left.
    pooled = layer_kinds.pool(SHAPE, kind="MaxPool2d", kernel_size=2, stride=2)
    strided = layer_kinds.convolution(SHAPE, out_channels=4, kernel_size=3, stride=2, padding=1)
    strided = replace(strided, output_shape=(4, 2, 2))
    assert part_cost(Part("", (strided,), (pooled,), join="add")).widest == 100 + 3 * 16 + 16


def test_the_cost_of_a_grouped_convolution_by_hand() -> None:
    depthwise = layer_kinds.convolution((6, 4, 4), out_channels=6, kernel_size=3, padding=1, groups=6, bias=False)
    assert layer_cost(depthwise) == Cost(6 * 9, 0, 2 * 9 * 6 * 16, 96, 192)
    halves = layer_kinds.convolution((6, 4, 4), out_channels=8, kernel_size=3, padding=1, groups=2)
    assert layer_cost(halves) == Cost(8 * (27 + 1), 0, 2 * 27 * 8 * 16, 128, 96 + 128)


def test_a_network_is_its_parts_in_turn() -> None:
    assert network_cost([NAMED]).num_parameters == 8 * 37 + 4 * 73
    assert network_cost([NAMED]).ends == 200
