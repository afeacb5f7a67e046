"""The shape arithmetic in plain integers. No tensor is made and no dummy forward pass is run.

A shape is (C, H, W), or (features,) once flattened.
"""

from __future__ import annotations

Shape = tuple[int, ...]


def side_after(size: int, *, kernel_size: int, stride: int, padding: int) -> int:
    """Length of one side of a feature map after a convolution or a floor-mode pool.

    Source: the shape section of torch.nn.Conv2d. 0 or less means that it does not fit.
    """
    return (size + 2 * padding - kernel_size) // stride + 1


def sides_in_words(sides: Shape, *, kernel_size: int, stride: int, padding: int) -> str:
    """The arithmetic of both sides, such as `28-3+1=26`; only once if height and width are equal."""
    words = []
    for size in dict.fromkeys(sides):
        after = side_after(size, kernel_size=kernel_size, stride=stride, padding=padding)
        span = f"{size}+2*{padding}-{kernel_size}" if padding else f"{size}-{kernel_size}"
        words.append(f"{span}+1={after}" if stride == 1 else f"({span})//{stride}+1={after}")
    return ", ".join(words)
