"""The layout of an image folder: its parts, classes and files. No image is opened here."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tuner.data.unused_files import UnusedFiles, count_by_extension, extension_of, is_ignored, unused_in_words
from tuner.errors import DataError

_VALIDATION_NAMES = ("val", "valid", "validation")
_PART_NAMES = ("train", *_VALIDATION_NAMES, "test")
# Formats that Pillow recognises but reads only with the help of another program.
_UNREADABLE_FORMATS = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")


@dataclass(frozen=True)
class ImageFile:
    """`name`: path below the data set's folder, with slashes; size in bytes; times in nanoseconds.

    ctime_ns: time of the last change of the file or of its directory entry, which no program can set back (on Windows:
    time of its creation).
    """

    name: str
    size: int
    mtime_ns: int
    ctime_ns: int


Classes = dict[str, list[ImageFile]]


@dataclass(frozen=True)
class FolderListing:
    """Classes in alphabetical order, the same in all parts. A part that the folder does not have is None.

    unused: number of files that are not part of the data set, by extension. table: the table (.csv) that lists the
    images, if there is one. groups: the group of each image by its name; None without groups. notes: lines for the
    user.
    """

    root: Path
    train: Classes
    validation: Classes | None
    test: Classes | None
    ignored: tuple[str, ...]
    unused: UnusedFiles = field(default_factory=dict)
    table: Path | None = None
    groups: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()

    @property
    def place(self) -> Path:
        """What the user gave: the table or the folder."""
        return self.table or self.root


def list_folder(root: Path) -> FolderListing:
    """List train/, test/ and val/ (or valid/, validation/), each with class folders, or class folders alone.

    Hidden files and the folders of other programs are ignored. Other files are counted in `unused` if they do not have
    the extension of an image, or are not in a class folder. Class folders may be nested, and symbolic links are
    followed, but never into a loop. Raises DataError for a folder that is missing or unreadable, and for classes that
    are too few, empty or not the same in all parts.
    """
    if not root.is_dir():
        kind = "is a file" if root.is_file() else "does not exist"
        raise DataError(
            f"an image folder must be a folder; {root} {kind}: give the folder that holds the class folders"
        )
    try:
        return _list_parts(root)
    except OSError as error:
        raise DataError(f"every file of an image folder must be readable; {error}: fix or remove it") from error


def list_images(folder: Path) -> tuple[list[Path], UnusedFiles]:
    """List the images below a folder, at any depth, by name, and count the files that are not images by extension.

    Hidden files and the folders of other programs are ignored. Raises DataError if the folder cannot be read or
    contains no image.
    """
    unused = Counter[str]()
    try:
        files = list(_walk(folder, "", extensions=_image_extensions(), entered=set(), unused=unused))
    except OSError as error:
        raise DataError(f"every file of an image folder must be readable; {error}: fix or remove it") from error
    if not files:
        raise DataError(f"a folder of images must hold some; {folder} holds none{_others(unused)}")
    return sorted(folder / file.name.lstrip("/") for file in files), unused


def _list_parts(root: Path) -> FolderListing:
    folders, unused = _subfolders(root), _count_beside(root)
    # A folder named train that holds images itself is a class: of vehicles, say.
    parts = {folder.name.lower(): folder for folder in folders if _is_part(folder)}
    if not parts:
        classes = _list_classes(root, root=root, unused=unused)
        if not any(file.name.count("/") == 1 for files in classes.values() for file in files):
            raise DataError(
                f"class folders must hold images; those of {root} ({_quoted(classes)}) hold only folders: parts of a "
                "data set must be named train, test and val"
            )
        return FolderListing(root, classes, None, None, (), unused)
    if "train" not in parts:
        raise DataError(f"an image folder with parts must have train/; {root} has {_quoted(parts)}: add or rename one")
    validation_names = [name for name in parts if name in _VALIDATION_NAMES]
    if len(validation_names) > 1:
        raise DataError(
            f"an image folder must have one validation part; {root} has {_quoted(validation_names)}: keep one"
        )
    for folder in parts.values():
        unused += _count_beside(folder)
    listed = {name: _list_classes(folder, root=root, unused=unused) for name, folder in parts.items()}
    for name, classes in listed.items():
        odd = sorted(set(classes) ^ set(listed["train"]))
        if odd:
            holder, other = (name, "train") if odd[0] in classes else ("train", name)
            raise DataError(
                f"all parts must have the same classes; {root / holder} has {odd[0]!r} and {root / other} has not: "
                "add or remove it"
            )
    return FolderListing(
        root=root,
        train=listed["train"],
        validation=listed[validation_names[0]] if validation_names else None,
        test=listed.get("test"),
        ignored=tuple(folder.name for folder in folders if folder not in parts.values()),
        unused=unused,
    )


def _list_classes(folder: Path, *, root: Path, unused: Counter[str]) -> Classes:
    """List the images of each class folder, and add other files to `unused`."""
    class_folders = _subfolders(folder)
    if len(class_folders) < 2:
        raise DataError(
            f"a data set must have at least 2 classes; {folder} has {len(class_folders)} class folders: "
            "make a folder for each class"
        )
    extensions = _image_extensions()
    prefix = "" if folder == root else f"{folder.name}/"
    classes = {}
    for class_folder in class_folders:
        entered = set(class_folder.resolve().parents)
        others = Counter[str]()
        name = f"{prefix}{class_folder.name}"
        files = list(_walk(class_folder, name, extensions=extensions, entered=entered, unused=others))
        if not files:
            raise DataError(
                f"every class folder must hold images; {class_folder} holds none{_others(others)}: "
                "add some or remove it"
            )
        unused += others
        classes[class_folder.name] = sorted(files, key=lambda file: file.name)
    return classes


def _walk(
    folder: Path, name: str, *, extensions: frozenset[str], entered: set[Path], unused: Counter[str]
) -> Iterator[ImageFile]:
    """Yield the visible images below a folder, and count the other visible files in `unused` by extension.

    entered: folders that were walked or are parents; they are skipped.
    """
    real = folder.resolve()
    if real in entered:
        return
    entered.add(real)
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if is_ignored(entry.name):
                continue
            # Path.is_dir, other than the entry's own, says no to a link that points at itself.
            if Path(entry).is_dir() if entry.is_symlink() else entry.is_dir():
                inner = f"{name}/{entry.name}"
                yield from _walk(Path(entry), inner, extensions=extensions, entered=entered, unused=unused)
            elif extension_of(entry.name) in extensions:
                stat = entry.stat()
                yield ImageFile(f"{name}/{entry.name}", stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            else:
                unused[extension_of(entry.name)] += 1


def _subfolders(folder: Path) -> list[Path]:
    found = [path for path in folder.iterdir() if not is_ignored(path.name) and path.is_dir()]
    # By name, because paths themselves compare without case on Windows.
    return sorted(found, key=lambda path: path.name)


def _is_part(folder: Path) -> bool:
    return folder.name.lower() in _PART_NAMES and bool(_subfolders(folder))


def _count_beside(folder: Path) -> Counter[str]:
    """Count the visible files beside the subfolders of a folder, by extension."""
    return count_by_extension(path.name for path in folder.iterdir() if not path.is_dir())


def _others(unused: Mapping[str, int]) -> str:
    """Describe the files of a folder without images; empty if it has none."""
    return f" ({unused_in_words(unused)})" if unused else ""


def _image_extensions() -> frozenset[str]:
    from PIL import Image

    known = Image.registered_extensions().items()
    return frozenset(extension for extension, name in known if name in Image.OPEN and name not in _UNREADABLE_FORMATS)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in list(names)[:5])
