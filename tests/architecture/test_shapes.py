import pytest

from tuner.architecture.shapes import side_after


@pytest.mark.parametrize(
    ("size", "kernel_size", "stride", "padding", "expected"),
    [
        (28, 3, 1, 0, 26),
        (28, 3, 1, 1, 28),
        (28, 5, 1, 2, 28),
        (28, 3, 2, 1, 14),
        (27, 3, 2, 1, 14),
        (26, 2, 2, 0, 13),
        (11, 2, 2, 0, 5),
        (11, 3, 4, 0, 3),
        (1, 1, 1, 0, 1),
        (1, 11, 4, 5, 1),
        (2, 3, 1, 0, 0),
    ],
)
def test_one_side_by_hand(size: int, kernel_size: int, stride: int, padding: int, expected: int) -> None:
    assert side_after(size, kernel_size=kernel_size, stride=stride, padding=padding) == expected
