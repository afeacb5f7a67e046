"""Find the pretrained weights of backbones: given files, the libraries' caches, downloads; and keep a copy of each."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tuner.architecture.backbones import input_of, is_timm
from tuner.data.dataset import Report
from tuner.errors import BackboneError, reason_of
from tuner.pretrained.downloads import Unavailable, library_weights, where_from
from tuner.pretrained.weights_file import read_weights, weights_digest
from tuner.temporary import temporary_beside


@dataclass(frozen=True)
class AvailableWeights:
    """Weights of a backbone, without its classifier: their digest, and the path of our copy."""

    backbone: str
    digest: str
    path: Path


def find_weights(
    names: Sequence[str],
    given: Mapping[str, Path],
    *,
    cache_dir: Path,
    asked_by_name: Collection[str] = (),
    download: bool = True,
    report: Report | None = None,
) -> tuple[list[AvailableWeights], list[str]]:
    """Find the weights of all named backbones, and of those that are given.

    given: files by backbone. Without a file, weights come from the caches of torch and timm, or are downloaded if
    `download` allows it. report: is called with the progress of downloads. A copy is kept in `cache_dir`. Returns the
    weights, in the order of the names, and at most one line about backbones without weights. Raises BackboneError if a
    file does not fit or if a backbone in `asked_by_name` has no weights, and Unavailable if no backbone has.
    """
    found: list[AvailableWeights] = []
    reasons: dict[str, str] = {}
    unreachable: dict[str, str] = {}
    for name in dict.fromkeys([*names, *given]):
        try:
            if name in given:
                input_of(name)  # refuses images that cannot be prepared
                weights = read_weights(given[name], name)
            else:
                weights = library_weights(name, unreachable, download=download, report=report)
        except Unavailable as error:
            if name in asked_by_name:
                raise BackboneError(f"{name} has no weights here ({error}): {_advice(name)}") from error
            reasons[name] = str(error)
            continue
        found.append(_keep(name, weights, cache_dir))
    if found:
        return found, [f"backbones without weights, which are not searched: {_listed(reasons)}"] if reasons else []
    if not reasons:
        raise BackboneError("a search of pretrained networks needs at least one backbone: give --weights NAME=FILE")
    advice = _advice(next(iter(reasons)))
    raise Unavailable(f"at least one backbone must have weights, and none has: {_listed(reasons)}: {advice}")


def load_weights(weights: AvailableWeights | str, cache_dir: Path, *, backbone: str = "NAME") -> dict[str, Tensor]:
    """Load the copy of weights by their digest, which is computed again.

    backbone: the name that an error asks for, if only the digest is given. Raises BackboneError if there is no copy, or
    if it has changed.
    """
    digest, name = (weights, backbone) if isinstance(weights, str) else (weights.digest, weights.backbone)
    path = _copy_of(digest, cache_dir)
    advice = f"run the search again with --weights {name}=FILE to restore it"
    try:
        with path.open("rb") as file:
            state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
        changed = weights_digest(state) != digest
    except OSError as error:
        raise BackboneError(f"{path}: pretrained weights cannot be read: {reason_of(error)}: {advice}") from error
    except Exception as error:  # torch.load raises whatever the damaged bytes lead to
        raise BackboneError(f"{path}: pretrained weights are damaged ({type(error).__name__}): {advice}") from error
    if changed:
        raise BackboneError(f"{path}: pretrained weights have changed since they were stored: {advice}")
    return state


def restore_weights(
    digests: Mapping[str, str], cache_dir: Path, *, download: bool = True, report: Report | None = None
) -> None:
    """Make sure that the copies of weights exist, whose digests are given by backbone.

    Weights whose copy is missing or damaged are looked for in the caches of torch and timm, and downloaded if
    `download` allows it. report: as in find_weights. Raises BackboneError if neither has weights with this digest.
    """
    unreachable: dict[str, str] = {}
    for name, digest in digests.items():
        try:
            load_weights(digest, cache_dir, backbone=name)
        except BackboneError as error:
            try:
                weights = library_weights(name, unreachable, download=download, report=report)
            except BackboneError:
                raise error from None  # what is wrong with the copy, and what to do
            if weights_digest(weights) != digest:
                raise
            _save(weights, _copy_of(digest, cache_dir))


def _keep(name: str, weights: Mapping[str, Tensor], cache_dir: Path) -> AvailableWeights:
    """Write the copy of weights, unless a complete one exists. Raises BackboneError for weights that are not finite."""
    for key, one in weights.items():
        if not bool(one.isfinite().all()):
            raise BackboneError(f"the weights of {name} must be finite numbers, and {key} is not: give another file")
    digest = weights_digest(weights)
    path = _copy_of(digest, cache_dir)
    try:
        load_weights(digest, cache_dir)
    except BackboneError:
        _save(weights, path)
    return AvailableWeights(name, digest, path)


def _save(weights: Mapping[str, Tensor], path: Path) -> None:
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save({name: one.contiguous().clone() for name, one in weights.items()}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise BackboneError(f"{path}: a copy of the weights cannot be written: {reason_of(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _copy_of(digest: str, cache_dir: Path) -> Path:
    return cache_dir / "weights" / f"{digest}.pt"


def _listed(reasons: Mapping[str, str]) -> str:
    """The backbones without weights, each reason once."""
    names = {reason: [name for name in reasons if reasons[name] == reason] for reason in reasons.values()}
    return "; ".join(f"{', '.join(names[reason])} ({reason})" for reason in names)


def _advice(name: str) -> str:
    """What a user can do for a backbone without weights."""
    if is_timm(name):
        return f"download its weights where there is a network{where_from(name)}, and give --weights {name}=FILE"
    return f"put {where_from(name)}, or give --weights {name}=FILE"
