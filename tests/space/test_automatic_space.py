"""The bundled space that suits images of each kind."""

import pytest

from tuner.space.automatic_space import automatic_space
from tuner.space.toml_file import bundled_spaces

UNREACHABLE = "no server can be reached"


@pytest.mark.parametrize(
    ("shape", "are_weights_given", "without_weights", "name", "reason"),
    [
        ((1, 8, 8), False, None, "cnn", "the images are small (8x8) and grey"),
        ((1, 64, 64), False, None, "cnn", "the images are small (64x64) and grey"),
        ((1, 64, 200), False, None, "cnn", "the images are small (64x200) and grey"),
        ((3, 32, 32), False, None, "resnet", "the images are small (32x32) and have colours"),
        ((3, 64, 64), False, None, "resnet", "the images are small (64x64) and have colours"),
        ((3, 65, 65), False, None, "pretrained", "the images (65x65) are larger than 64 pixels"),
        ((1, 224, 224), False, None, "pretrained", "the images (224x224) are larger than 64 pixels"),
        ((3, 224, 224), False, UNREACHABLE, "resnet", UNREACHABLE),
        ((1, 96, 128), False, UNREACHABLE, "resnet", "the images (96x128) are larger than 64 pixels"),
        ((3, 32, 32), True, None, "pretrained", "pretrained weights are given"),
        ((1, 8, 8), True, None, "pretrained", "pretrained weights are given"),
    ],
)
def test_the_shape_of_the_images_and_the_available_weights_decide_and_the_note_gives_the_reason(
    shape: tuple[int, int, int], are_weights_given: bool, without_weights: str | None, name: str, reason: str
) -> None:
    chosen, note = automatic_space(shape, are_weights_given=are_weights_given, without_weights=without_weights)
    assert chosen == name
    assert note.startswith(f"the space is {name}")
    assert reason in note
    assert "\n" not in note
    assert name in bundled_spaces()
