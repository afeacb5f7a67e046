"""Released defaults: values that fingerprints omit, and that stored candidates without such a field have.

A stored value has the same meaning in every later version. Therefore a row is never changed, even if the default of the
dataclass changes. A new field gets a row with the value that builds and trains networks as before the field existed. A
field without a row is always part of the fingerprint. Examples are `out_channels`, the tag of a block family other than
the plain one, and `trained_stages`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

CANDIDATE_FORMAT = 1
"""Number of the format. Raised only to change the fingerprints of all candidates; a new field with a row does not."""

Part = Mapping[str, Any]

RELEASED_DEFAULTS: dict[str, Part] = {
    "plain": {
        "kernel_size": 3,
        "stride": 1,
        "padding": "same",
        "normalization": "none",
        "activation": "relu",
        "pooling": "none",
        "pool_size": 2,
        "pool_stride": 2,
        "dropout": 0.0,
    },
    "residual": {
        "kernel_size": 3,
        "stride": 1,
        "normalization": "batch",
        "activation": "relu",
        "order": "post",
        "shortcut": "identity",
        "pooling": "none",
        "pool_size": 2,
        "pool_stride": 2,
        "dropout": 0.0,
    },
    "inverted_residual": {
        "expansion": 6,
        "kernel_size": 3,
        "stride": 1,
        "normalization": "batch",
        "activation": "relu6",
        "squeeze": 0,
    },
    "activation": {
        "normalization": "batch",
        "activation": "relu",
    },
    "backbone": {
        "crop_fraction": 0.0,
    },
    "head": {
        "pooling": "flatten",
        "hidden_features": 0,
        "activation": "relu",
        "dropout": 0.0,
    },
    "recipe": {
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "schedule": "constant",
        "batch_size": 64,
        "epochs": 10,
        "weight_decay": 0.0,
        "momentum": 0.9,
        "label_smoothing": 0.0,
        "warm_up": 0.0,
        "ema": 0.0,
        "class_weights": "none",
        "stage_decay": 1.0,
        "flip": "none",
        "translate": 0.0,
        "cutout": 0.0,
        "mixup": 0.0,
        "cutmix": 0.0,
        "brightness": 0.0,
        "contrast": 0.0,
    },
}
"""Released defaults of format 1 for each block family, a network with a backbone, the head and the recipe."""


def without_defaults(candidate: Part) -> dict[str, Any]:
    """Return the JSON object of a candidate without the fields that have their released defaults."""
    return _in_each_part(candidate, lambda part, row: {k: v for k, v in part.items() if k not in row or v != row[k]})


def with_defaults(candidate: Part) -> dict[str, Any]:
    """Return a candidate's JSON object with released defaults for missing fields; malformed parts are unchanged."""
    return _in_each_part(candidate, lambda part, row: {**row, **part})


def _in_each_part(candidate: Part, change: Callable[[Part, Part], Part]) -> dict[str, Any]:
    """Return the candidate with its network's parts and its recipe changed.

    `change` takes a part and its row of defaults.
    """

    def changed(part: Any, kind: str) -> Any:
        return change(part, RELEASED_DEFAULTS[kind]) if isinstance(part, Mapping) else part

    whole = dict(candidate)
    if "recipe" in whole:
        whole["recipe"] = changed(whole["recipe"], "recipe")
    if isinstance(whole.get("architecture"), Mapping):
        architecture = dict(whole["architecture"])
        if "backbone" in architecture:
            architecture = dict(changed(architecture, "backbone"))
        whole["architecture"] = architecture
        if "head" in architecture:
            architecture["head"] = changed(architecture["head"], "head")
        if isinstance(architecture.get("blocks"), list | tuple):
            architecture["blocks"] = [changed(block, _family(block)) for block in architecture["blocks"]]
    return whole


def _family(block: Any) -> str:
    """The row of a block: that of its family; of the plain one where it has no tag, or one that is not known."""
    family = block.get("family", "plain") if isinstance(block, Mapping) else "plain"
    return family if family in RELEASED_DEFAULTS else "plain"
