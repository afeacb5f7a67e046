"""Files among the images of a data set that are not used: those of other programs are ignored, all others counted."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePath

UnusedFiles = Mapping[str, int]
"""Number of files that are not used, by extension in lower case; the extension of a file without one is empty."""

_FOLDERS = frozenset(
    name.lower()
    for name in (
        "__MACOSX",  # Archive Utility on macOS: hidden files in a folder that is not hidden
        "@eaDir",  # thumbnails and metadata of Synology's file server
        "@tmp",
        "#recycle",  # recycle bins and snapshots of Synology's and QNAP's file servers
        "#snapshot",
        "@Recycle",
        "@Recently-Snapshot",
        "$RECYCLE.BIN",  # the recycle bin of Windows
        "System Volume Information",
        "lost+found",  # what fsck finds, at the root of a Linux disk
        "Network Trash Folder",  # Netatalk, for the Mac
        "Temporary Items",
        "__pycache__",
    )
)
_FILES = frozenset(("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"))


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden, or made by file servers, systems or archivers beside a user's own.

    Folders such as `.thumbnails` are hidden, and need no entry above.
    """
    return name.startswith(".") or name.lower() in _FOLDERS or name.lower() in _FILES


def extension_of(name: str) -> str:
    """Return the extension of a file's name in lower case, with its dot; empty if it has none."""
    return PurePath(name).suffix.lower()


def count_by_extension(names: Iterable[str]) -> Counter[str]:
    """Count files by their extension, without those that are ignored. names: of files."""
    return Counter(extension_of(name) for name in names if not is_ignored(name))


def unused_in_words(unused: UnusedFiles, *, num_shown: int = 5) -> str:
    """Describe files by extension, the most frequent first: `80 .heic, 10 without an extension`."""
    ordered = sorted(unused.items(), key=lambda item: (-item[1], item[0]))
    said = [f"{number:,} {extension or 'without an extension'}" for extension, number in ordered[:num_shown]]
    others = sum(number for _, number in ordered[num_shown:])
    return ", ".join(said + ([f"{others:,} others"] if others else []))
