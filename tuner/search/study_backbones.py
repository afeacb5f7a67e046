"""The backbones of a study: available weights, and images decoded as each of them expects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path

import torch

from tuner.architecture.any_architecture import AnyArchitecture
from tuner.architecture.backbone_cost import backbone_cost
from tuner.architecture.backbone_modules import resolve_backbone
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.spec import Head
from tuner.data.dataset import DataSpec, ImageDataset, Report
from tuner.data.development_part import load_development
from tuner.data.feature_data import FeatureData
from tuner.data.image_rule import spec_for
from tuner.data.images import Preprocessing
from tuner.data.splits import Split
from tuner.data.training_data import memory_for_images
from tuner.errors import BackboneError, OptionError
from tuner.hardware import num_cores
from tuner.pretrained.ranking import log_me
from tuner.pretrained.weights import find_weights, restore_weights
from tuner.pretrained.weights_file import read_weights, weights_digest
from tuner.search.backbone_data import BackboneData, DecodedFolders, preprocessing_of
from tuner.search.ranking_limit import OutOfTime, RankingLimit
from tuner.search.study_runners import input_spec_of
from tuner.space.backbone_space import backbone_network
from tuner.space.schema import SearchSpace
from tuner.training.candidate import Candidate, Recipe, resolve_candidate
from tuner.training.engine import Engine
from tuner.training.process_settings import prepare_process

RANKED_IMAGES = 4_000
"""Most training images whose features are compared with their labels, which takes seconds for so many."""


def with_weights(
    space: SearchSpace,
    given: Mapping[str, Path],
    stored: SearchSpace | None,
    *,
    cache_dir: Path,
    is_named: bool,
    download: bool,
    report: Report | None = None,
) -> tuple[SearchSpace, list[str]]:
    """Return a space with the weights of its backbones, and notes; a space without backbones stays as it is.

    given: files of weights by backbone. stored: the space of the study that is resumed, whose backbones and weights are
    fixed. is_named: whether the user has named the backbones, so that each one without weights is an error. download:
    whether weights may be downloaded. report: is called with the progress of downloads. Raises BackboneError, and
    OptionError for weights without backbones.
    """
    if space.backbone is None:
        if given:
            is_kept = stored is not None and stored.name == space.name
            whose = ", which the study keeps," if is_kept else ""
            another = ", or start another study with --study NAME" if is_kept else ""
            raise OptionError(
                f"weights must go with a space of backbones, and {space.name!r}{whose} has none: omit them{another}"
            )
        return space, []
    if stored is not None and stored.backbone is not None and stored.name == space.name:
        return with_stored_weights(space, stored, given, cache_dir=cache_dir, download=download, report=report), []
    return with_available_weights(
        space, given, cache_dir=cache_dir, is_named=is_named, download=download, report=report
    )


def with_available_weights(
    space: SearchSpace,
    given: Mapping[str, Path],
    *,
    cache_dir: Path,
    is_named: bool,
    download: bool = True,
    report: Report | None = None,
) -> tuple[SearchSpace, list[str]]:
    """Return a space with only those backbones with available weights, with their digests, and notes on the others.

    given: files of weights by backbone, which also adds backbones to the space. Raises BackboneError.
    """
    section = space.backbone
    assert section is not None
    names = [*given, *(name for name in section.name.values if name not in given)]
    found, notes = find_weights(
        names,
        given,
        cache_dir=cache_dir,
        asked_by_name=names if is_named else list(given),
        download=download,
        report=report,
    )
    digests = {one.backbone: one.digest for one in found}
    return space.with_backbones(digests), notes


def with_stored_weights(
    space: SearchSpace,
    stored: SearchSpace,
    given: Mapping[str, Path],
    *,
    cache_dir: Path,
    download: bool = True,
    report: Report | None = None,
) -> SearchSpace:
    """Return a space with the backbones and weights that a study fixed when it began.

    Weights whose copy is missing or damaged are read again from a given file, or else found as restore_weights does.
    Raises BackboneError if they are not found, or if a given file has other weights.
    """
    added = [name for name in given if name not in stored.weights]
    if added:
        raise BackboneError(
            f"--weights {added[0]}: the backbones of a study are fixed when it begins, and {added[0]} is not among "
            f"them ({', '.join(stored.weights)}): omit it, or start another study with --study NAME"
        )
    for name, file in given.items():
        own, given_digest = stored.weights[name], weights_digest(read_weights(file, name))
        if given_digest != own:  # before a copy of them is kept
            raise BackboneError(
                f"--weights {name}={file}: the study began with other weights of {name} ({own}, and the "
                f"file has {given_digest}): give that file, or start another study with --study NAME"
            )
        find_weights([name], {name: file}, cache_dir=cache_dir)
    restore_weights(stored.weights, cache_dir, download=download, report=report)
    return space.with_backbones(stored.weights)


def restore_weights_of(networks: Iterable[AnyArchitecture], cache_dir: Path, *, report: Report | None = None) -> None:
    """Make sure that there are copies of the weights of networks with a backbone, as restore_weights does.

    Raises BackboneError.
    """
    backbones = [one for one in networks if isinstance(one, BackboneNetwork)]
    restore_weights({one.backbone: one.weights for one in backbones}, cache_dir, report=report)


def rank_backbones(
    space: SearchSpace,
    decoded: DecodedFolders,
    dataset: ImageDataset,
    split: Split,
    *,
    device: torch.device,
    limit: RankingLimit,
    report: Report | None = None,
) -> tuple[SearchSpace, list[str]]:
    """Return a space with its backbones in the order of LogME on the training images, and notes on the order.

    The features that this takes are those of frozen backbones, which the search then finds in the cache. They are
    computed with all cores, before the runners start. Backbones that were not ranked in time come last. Of large sets,
    RANKED_IMAGES training images are compared. Changes torch's number of threads.

    Raises BackboneError for features that are not finite.
    """
    section = space.backbone
    assert section is not None
    engine = Engine(str(device), num_threads=num_cores())
    prepare_process(engine)
    values = {name: parameter.default for name, parameter in section.own_parameters()}
    values |= {"trained_stages": 0, "views": 0}
    scores: dict[str, float] = {}
    for name in section.name.values:
        if scores and limit.is_share_used:
            break
        reporting = limit.reporting(report, is_first=not scores)
        backbones = BackboneData(decoded, engine, memory_for_images(device), dataset.reading, report=reporting)
        network = backbone_network(values | {"backbone": name}, space.weights, Head(), input_spec_of(dataset))
        candidate = resolve_candidate(Candidate(network, Recipe()))
        try:
            data = backbones.open(candidate, backbones.network(candidate, seed=0), lambda _: split)
        except OutOfTime:
            break
        if isinstance(data, FeatureData):
            rows_N = split.train_indices_N
            rows_N = rows_N[:: -(-len(rows_N) // RANKED_IMAGES)]
            features_NF = data.views_NX[0][rows_N]
            if not bool(features_NF.isfinite().all()):
                raise BackboneError(
                    f"the features of {name} must be finite numbers, and some are not: its weights cannot be "
                    "used; give others with --weights, or choose another backbone"
                )
            scores[name] = log_me(features_NF, data.labels_N[rows_N])
    order = sorted(scores, key=lambda name: scores[name], reverse=True)
    unknown = [name for name in section.name.values if name not in scores]
    notes = []
    if len(order) > 1:
        ranked = ", ".join(f"{name} ({scores[name]:.2f})" for name in order)
        notes = [f"backbones in the order of LogME on the training images: {ranked}"]
    if unknown and order:
        notes.append(f"not ranked, and tried last: {', '.join(unknown)}")
    elif unknown and limit.is_over:
        notes.append("the time budget was used up before any backbone was ranked")
    names = [*order, *unknown]
    return space.with_backbones({name: space.weights[name] for name in names}), notes


def preprocessings(space: SearchSpace, dataset: ImageDataset) -> dict[Preprocessing, list[str]]:
    """Every preprocessing that networks of a space with backbones expect, with the names of these backbones.

    Raises BackboneError for an image size that a backbone cannot take.
    """
    section = space.backbone
    assert section is not None
    input_spec = input_spec_of(dataset)
    values = {name: parameter.default for name, parameter in section.own_parameters()}
    found: dict[Preprocessing, list[str]] = {}
    for name in section.name.values:
        for side, fraction in product(section.image_size.values, section.crop_fraction.values):
            values |= {"backbone": name, "image_size": side, "crop_fraction": fraction}
            network = resolve_backbone(backbone_network(values, space.weights, Head(), input_spec))
            backbone_cost(network)  # raises BackboneError for a size that the backbone cannot take
            names = found.setdefault(preprocessing_of(network, dataset.reading), [])
            names += [name] * (name not in names)
    return found


def decode_for_backbones(
    space: SearchSpace, spec: DataSpec, dataset: ImageDataset, *, report: Report | None = None
) -> DecodedFolders | None:
    """Decode both parts of a data set for every backbone, image size and crop; None for a space without backbones.

    Raises DataError as load_development does, and BackboneError as preprocessings does.
    """
    if space.backbone is None:
        return None
    folders = {
        preprocessing: load_development(spec_for(spec, preprocessing), report=report).folder
        for preprocessing in preprocessings(space, dataset)
    }
    return DecodedFolders(folders, spec.cache_dir)


def decode_for_network(
    network: AnyArchitecture, spec: DataSpec, dataset: ImageDataset, *, report: Report | None = None
) -> ImageDataset:
    """Return the images of a data set as a network expects them: decoded for its weights if it has a backbone.

    Raises DataError as load_development does.
    """
    if not isinstance(network, BackboneNetwork):
        return dataset
    return load_development(spec_for(spec, preprocessing_of(network, dataset.reading)), report=report)
