"""Data sets of torch: each item is read once to find labels and sizes, and once more to be decoded into the cache."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.data.array_labels import Classes, classes_of, indices_of, labels_from
from tuner.data.dataset import DecodablePart, DecodableSource, Decoding, Report
from tuner.data.image_parts import ImageParts
from tuner.data.image_records import unknown_sources
from tuner.data.image_rule import ImageRule, choose_rule
from tuner.data.images import pixels_from
from tuner.data.item_images import Item, errors_naming, name_of, read_item
from tuner.data.set_aside import check_label_counts, set_test_aside
from tuner.errors import DataError
from tuner.names import first_few, shown_name

_REPORTED = 256


@dataclass(frozen=True, eq=False)
class _Rows:
    """Some items of a part. data_set: the part. what: how errors call it."""

    data_set: Any
    what: str
    indices: NDArray[np.int64]
    items: Sequence[Item]
    labels_N: NDArray[np.int64]

    def take(self, rows_N: NDArray[np.int64]) -> "_Rows":
        items = [self.items[row] for row in rows_N]
        return _Rows(self.data_set, self.what, self.indices[rows_N], items, self.labels_N[rows_N])


def scan_items(parts: ImageParts, *, report: Report | None) -> dict[str, list[Item]]:
    """Read every item of every part. Raises DataError for an empty part, and for an item that is no image and label."""
    scanned = {}
    for name, data_set in parts.given().items():
        num_items = len(data_set)
        if not num_items:
            raise DataError(f"every part must have images; the {name} part of {parts.name} is empty")
        scanned[name] = list[Item]()
        for index in range(num_items):
            scanned[name].append(read_item(data_set, index, _what(parts, name))[1])
            if report is not None and (index + 1) % _REPORTED == 0:
                report(f"reading {parts.name}", index + 1, num_items)
    return scanned


def source_from_items(parts: ImageParts, scanned: Mapping[str, list[Item]], *, decoding: Decoding) -> DecodableSource:
    """Make a source from scanned data sets. Raises DataError for labels that are no classes or cannot be split."""
    labels = {
        name: labels_from(_one_kind([item.label for item in items], _what(parts, name)), f"labels of {name}",
                          num_images=len(items))
        for name, items in scanned.items()
    }  # fmt: skip
    classes = _classes(parts, labels["train"])
    rows = {
        name: _Rows(
            data_set,
            _what(parts, name),
            np.arange(len(scanned[name])),
            scanned[name],
            indices_of(labels[name], classes, f"labels of {name}"),
        )
        for name, data_set in parts.given().items()
    }
    notes = list(classes.notes)
    train, has_validation = rows["train"], "validation" in rows
    check_label_counts(
        train.labels_N, classes.names, place=parts.name, has_validation=has_validation, has_test="test" in rows
    )
    if "test" not in rows:
        aside = set_test_aside(
            parts.name,
            train.labels_N,
            classes.names,
            hashes_of=lambda: [int.from_bytes(item.digest[:8]) for item in train.items],
            kind="image",
            has_validation=has_validation,
        )
        notes.append(aside.note)
        rows["test"], rows["train"] = train.take(aside.test_N), train.take(aside.rest_N)
    development = [rows[name] for name in ("train", "validation") if name in rows]
    rule = choose_rule([item.facts for part in development for item in part.items], decoding)
    notes += [*rule.notes, rule.described]
    start = len(rows["train"].items) if "validation" in rows else None
    return DecodableSource(
        parts.name,
        classes.names,
        rule.shape_CHW,
        _decodable(development, rule, start, notes),
        _decodable([rows["test"]], rule, None, notes),
        rule.reading,
        rule.resizing,
    )


def _what(parts: ImageParts, name: str) -> str:
    return f"the {name} part of {parts.name}"


def _one_kind(labels: list[Any], what: str) -> NDArray[Any]:
    """Return labels as an array. Raises DataError for numbers among texts, which NumPy would make texts too."""
    if len({isinstance(label, str) for label in labels}) > 1:
        raise DataError(f"labels must be all whole numbers or all texts; {what} mixes them")
    return np.array(labels)


def own_names(data_set: Any) -> tuple[str, ...] | None:
    """Return the names of labels from 0 that a data set of torchvision, or a subset of it, has as `classes`."""
    for owner in (data_set, getattr(data_set, "dataset", None)):
        known: Any = getattr(owner, "classes", None)
        known = known.tolist() if hasattr(known, "tolist") else known
        if isinstance(known, list | tuple) and known:
            return tuple(known) if all(isinstance(name, str) for name in known) else None
    return None


def _classes(parts: ImageParts, train_labels: NDArray[Any]) -> Classes:
    """Return the classes, with the data set's own names, unless names are given or the labels are texts."""
    what = f"labels of {_what(parts, 'train')}"
    classes = classes_of(train_labels, parts.class_names, what)
    known = own_names(parts.train)
    if known is None or parts.class_names is not None or train_labels.dtype.kind == "U":
        return classes
    if classes.labels_K[-1] >= len(known):
        raise DataError(
            f"{what} must be in 0..{len(known) - 1}, since there are {len(known)} classes; one is "
            f"{classes.labels_K[-1]}"
        )
    notes = classes.notes
    if unused := [name for label, name in enumerate(known) if label not in classes.labels_K]:
        note = f"of the {len(known):,} names in `classes` of {_what(parts, 'train')}, these have no training image"
        notes = (*notes, f"{note}, and are not used: {first_few(map(shown_name, unused))}")
    return replace(classes, names=tuple(shown_name(known[label]) for label in classes.labels_K), notes=notes)


def _decodable(
    parts: Sequence[_Rows], rule: ImageRule, validation_start: int | None, notes: Sequence[str]
) -> DecodablePart:
    channels, height, width = rule.shape_CHW
    sources_N = unknown_sources(sum(len(part.items) for part in parts))

    def decode_into(images_NCHW: NDArray[np.uint8], report: Report | None) -> str:
        digest = hashlib.blake2b(b"items", digest_size=16)
        row = 0
        for part in parts:
            for index, item in zip(part.indices.tolist(), part.items, strict=True):
                image, again = read_item(part.data_set, index, part.what)
                if again != item:
                    raise DataError(
                        f"a data set must give the same images whenever it is asked; {name_of(index, part.what)} "
                        "differs: remove random transforms"
                    )
                with errors_naming(name_of(index, part.what)):
                    images_NCHW[row] = pixels_from(
                        image,
                        channels=channels,
                        height=height,
                        width=width,
                        reading=rule.reading,
                        resizing=rule.resizing,
                    )
                sources_N[row] = (item.digest, item.facts.height, item.facts.width)
                digest.update(item.digest)
                row += 1
                if report is not None and row % _REPORTED == 0:
                    report("decoding images", row, len(images_NCHW))
        return digest.hexdigest()

    labels_N = np.concatenate([part.labels_N for part in parts])
    return DecodablePart(labels_N, decode_into, validation_start, tuple(notes), sources_N=sources_N)
