"""data_ready: the event that reports the images of a study when a run begins."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.data.data_checks import DataChecks
from tuner.data.dataset import ImageDataset
from tuner.data.splits import Split
from tuner.search.backbone_data import DecodedFolders
from tuner.search.backbone_images import ImagesInWords, describe_decoded
from tuner.search.events import DataReady
from tuner.search.record import StudyRecord
from tuner.search.study_runners import StudyRunners
from tuner.space.schema import SearchSpace


def data_ready(
    record: StudyRecord,
    space: SearchSpace,
    dataset: ImageDataset,
    split: Split,
    runners: StudyRunners,
    notes: Sequence[str],
    *,
    decoded: DecodedFolders | None,
    checks: DataChecks | None = None,
) -> DataReady:
    """Return the event. decoded: the images as backbones expect them, which are then described instead."""
    if decoded is None:
        images = ImagesInWords((tuple(dataset.images_NCHW.shape[1:]),), runners.held, dataset.notes)
    else:
        images = describe_decoded(space, dataset, decoded, device=runners.device, memory_bytes=runners.image_bytes)
    return DataReady(
        study=record.name,
        dataset=dataset.name,
        shape=images.shapes[0],
        num_classes=len(dataset.class_names),
        num_train=len(split.train_indices_N),
        num_validation=len(split.validation_indices_N),
        device=record.engine.device,
        held=images.held,
        notes=(*images.notes, *dataset.repairs, *notes),
        checks=checks,
        other_sizes=tuple((height, width) for _, height, width in images.shapes[1:]),
    )
