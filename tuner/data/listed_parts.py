"""List a data set that a program gives in memory, or that a study has stored as decoded images only."""

import hashlib
import json
import re
from collections.abc import Iterator

from tuner.data.array_parts import RawPart, source_from_parts
from tuner.data.array_values import array_from
from tuner.data.dataset import DataSpec, DecodableSource, ListedSource, Report
from tuner.data.image_parts import STORED, ImageParts
from tuner.data.item_parts import own_names, scan_items, source_from_items
from tuner.errors import DataError
from tuner.names import shown_name


def list_parts(parts: ImageParts, spec: DataSpec, *, report: Report | None) -> ListedSource:
    """List arrays or data sets; every item of a data set is read once. Raises DataError for other objects."""
    if not parts.are_arrays and "items" not in parts.known:
        parts.known["items"] = scan_items(parts, report=report)
    return ListedSource(listing=_lines(parts.name, digest_of(parts)), read=lambda _: _read(parts, spec))


def list_stored_parts(spec: DataSpec) -> ListedSource:
    """List a data set by what a study has stored; only its decoded images can be found.

    Raises DataError for a text that no study stores.
    """
    name, _, digest = str(spec.dataset).removeprefix(STORED).rpartition(":")
    if not name or re.fullmatch("[0-9a-f]{32}", digest) is None:
        raise DataError(
            f"--dataset must be a known name, or the path of a folder or file; {spec.dataset!r} is neither: give "
            f"arrays in Python, with RunOptions(dataset=...), and a path of this name as ./{spec.dataset}"
        )

    def refuse(_: Report | None) -> DecodableSource:
        raise DataError(
            f"the images of {name} were given by a program, and their decoded copy in {spec.cache_dir} is missing, "
            "damaged or of another size: give them again with RunOptions(dataset=...)"
        )

    return ListedSource(listing=_lines(name, digest), read=refuse)


def stored_name(parts: ImageParts) -> str:
    """Return what a study stores in place of a path."""
    return f"{STORED}{parts.name}:{digest_of(parts)}"


def digest_of(parts: ImageParts) -> str:
    """Return the digest of all images, labels and class names, computed once for the same names."""
    given = None if parts.class_names is None else list(parts.class_names)
    own = None if parts.are_arrays or given is not None else own_names(parts.train)
    # A program may set `classes` of a data set after its images were read.
    names = json.dumps([given] if own is None else [given, own], default=str)
    if (key := f"digest {names}") not in parts.known:
        digest = hashlib.blake2b(names.encode(), digest_size=16)
        for piece in _pieces(parts):
            digest.update(piece)
        parts.known[key] = digest.hexdigest()
    found: str = parts.known[key]
    return found


def _pieces(parts: ImageParts) -> Iterator[bytes]:
    for name, part in parts.given().items():
        yield name.encode()
        if not parts.are_arrays:
            yield from (f"{item.label!r} ".encode() + item.digest for item in parts.known["items"][name])
            continue
        for value in part:
            array = array_from(value, f"the {name} part of {parts.name}")
            yield f"{array.dtype.str} {array.shape}".encode()
            yield repr(array.tolist()).encode() if array.dtype == object else array.tobytes()


def _lines(name: str, digest: str) -> tuple[str, ...]:
    return "arrays", name, digest


def _read(parts: ImageParts, spec: DataSpec) -> DecodableSource:
    if not parts.are_arrays:
        return source_from_items(parts, parts.known["items"], decoding=spec.decoding)
    raw = {}
    for name, (images, labels, *groups) in parts.given().items():
        whose = f"{'training' if name == 'train' else name} {{}} of {parts.name}"
        words = [f"the {whose.format(what)}" for what in ("images", "labels", "groups")]
        raw[name] = RawPart(images, labels, words[0], words[1], groups[0] if groups else None, words[2])
    return source_from_parts(shown_name(parts.name), raw, class_names=parts.class_names, decoding=spec.decoding)
