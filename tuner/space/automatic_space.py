"""Decide which bundled space suits the images of a new study (`--space auto`)."""

from __future__ import annotations

AUTO = "auto"
LARGEST_SMALL_SIDE = 64
"""Images whose shorter side has more pixels than this are large enough for pretrained networks."""


def automatic_space(
    image_shape: tuple[int, ...], *, are_weights_given: bool = False, without_weights: str | None = None
) -> tuple[str, str]:
    """Return the name of the bundled space for images of a shape, and a note for the user with the reason.

    image_shape: channels, height, width. are_weights_given: whether the user gives pretrained weights, which have no
    use in another space. without_weights: why no pretrained weights are available or usable; None if they may be.
    """
    channels, height, width = image_shape
    size = f"{height}x{width}"
    if are_weights_given:
        return "pretrained", "the space is pretrained, since pretrained weights are given"
    if min(height, width) > LARGEST_SMALL_SIDE:
        larger = f"the images ({size}) are larger than {LARGEST_SMALL_SIDE} pixels"
        if without_weights is None:
            return "pretrained", f"the space is pretrained, since {larger} and pretrained weights are available"
        return "resnet", f"the space is resnet: {larger}, but the space pretrained cannot be used: {without_weights}"
    if channels == 1:
        return "cnn", f"the space is cnn, since the images are small ({size}) and grey"
    return "resnet", f"the space is resnet, since the images are small ({size}) and have colours"
