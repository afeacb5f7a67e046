"""The families of blocks, one file each. A family is a frozen dataclass with `resolve` and `layers` beside it."""

from tuner.architecture.blocks.plain import PlainBlock

Block = PlainBlock
"""Any block. This becomes a union when there is a second family."""

__all__ = ["Block", "PlainBlock"]
