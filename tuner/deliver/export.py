"""Export a study's network to files that are each loaded again and scored before they replace anything."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from tuner.data.dataset import Report
from tuner.data.image_rule import is_decoded_for
from tuner.data.sealed import fix_parts, fix_parts_for
from tuner.deliver.classifier import classifier_from
from tuner.deliver.evaluate import Part, development_part_of, test_part_of
from tuner.deliver.export_check import Checked, Reference, check, num_undecided, reference_of, save_images
from tuner.deliver.export_formats import FORMAT_NAMES, FORMATS, FormatName
from tuner.deliver.export_readme import MARK, StoredScore, headings_of, readme_of
from tuner.deliver.flip_tested import add_flip_test
from tuner.deliver.optional_packages import require_extra
from tuner.deliver.sealed_set import open_test_set
from tuner.deliver.traced_program import traced_program
from tuner.errors import CheckpointError, DataError, StudyError, reason_of
from tuner.search.checkpoints import load_confirmed_checkpoint, load_trial_checkpoint
from tuner.search.older_studies import is_of_older_version, refuse_older_version
from tuner.search.record import StudyRecord
from tuner.search.study_data import are_images_of
from tuner.search.summary import summarise
from tuner.temporary import remove_leftovers, temporary_beside
from tuner.training.caller_settings import with_own_settings
from tuner.training.checkpoint import Checkpoint, backbone_of

README = "README.md"
CHECKS_AT_ONCE = 2
"""Number of checking processes that run while the next file is written.

Most of the time of a check is startup, and each process holds all of its images.
"""


@dataclass(frozen=True)
class Exported:
    """What was exported: the checkpoint, its score, and the result of the check of each file.

    is_confirmed: whether the score is on the test set; otherwise it is the search's own, and optimistic.
    without_flip_test: the score of the network itself, if the export has a flip test. replaced: files that were
    overwritten. removed: files of an older export in the same folder that this export does not have.
    notes: about the images used for the check.
    """

    checkpoint: Checkpoint
    score: StoredScore
    is_confirmed: bool
    files: Mapping[Path, Checked]
    replaced: frozenset[Path] = frozenset()
    removed: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    without_flip_test: StoredScore | None = None


@dataclass(frozen=True)
class _Target:
    path: Path
    is_folder: bool


@with_own_settings
def export(
    record: StudyRecord,
    *,
    studies: Path,
    output: Path | None = None,
    format: FormatName | Literal["all"] = "pt",
    flip_test: bool = False,
    report: Report | None = None,
) -> Exported:
    """Export the network that a study delivers: the confirmed winner, or else its best trial.

    `output` is a file with the format's extension, or a folder: an existing one, or a name without an extension. A
    folder also gets a README.md and loses the files that an older export has left there; `python` and `all` need a
    folder. Every file is loaded in a fresh process and scored on the images of the stored score: the test set for a
    confirmed winner, else the validation part. Files are put in place only if all of them reproduce that score.

    With `flip_test`, the files compute the mean of the logits of an image and of its mirror image. Their score on the
    same images is then stored in place of the network's own, which is checked first and stored beside it.

    Raises StudyError if there is no network yet, DataError if the images are missing or have changed, CheckpointError
    if a file cannot be written or gets another score, and InstallationError if a package is missing.
    """
    names = FORMAT_NAMES if format == "all" else (format,)
    for name in names:
        require_extra(FORMATS[name].needs, what=f"--format {name}")
    target = _target(output, format)
    _refuse_older_version(record, studies=studies)
    checkpoint = _load_source(record, studies=studies)
    is_confirmed = "test_accuracy" in checkpoint.scores
    part = _part_of_score(record, checkpoint, studies=studies, is_confirmed=is_confirmed, report=report)
    reference = reference_of(classifier_from(checkpoint), part)
    score = StoredScore("test" if is_confirmed else "validation", reference.num_correct, len(part.labels_N))
    _check_stored(checkpoint, score, num_undecided=num_undecided(reference))
    without_flip_test = score if flip_test else None
    if flip_test:
        checkpoint, reference = add_flip_test(checkpoint, part, score)
        score = replace(score, num_correct=reference.num_correct)
    with _workshop(target) as folder:
        file_names = {name: FORMATS[name].file_name if target.is_folder else target.path.name for name in names}
        checked = _write_and_check(checkpoint, part, reference, folder=folder, file_names=file_names)
        written = [file for name in names for file in FORMATS[name].files]
        if target.is_folder:
            text = readme_of(checkpoint, score, file_names, without_flip_test=without_flip_test)
            (folder / README).write_text(text, encoding="utf-8", newline="\n")
            written.append(README)
        place = target.path if target.is_folder else target.path.parent
        files = {place / file_names[name]: checked[name] for name in names}
        replaced = frozenset(path for path in files if path.exists())
        removed = _remove_older(target.path, set(written)) if target.is_folder else ()
        _publish(folder, written, target)
    return Exported(checkpoint, score, is_confirmed, files, replaced, removed, part.repairs, without_flip_test)


def _refuse_older_version(record: StudyRecord, *, studies: Path) -> None:
    """Raise StudyError for a study whose images cannot be compared with these; its checkpoint needs no export."""
    if is_of_older_version(record):
        summary = summarise(record, studies=studies)
        path = summary.delivered or summary.checkpoint
        if path is not None:
            refuse_older_version(record, instead=f"use its checkpoint {path} as it is, which plain PyTorch can load")
        refuse_older_version(record)


def _load_source(record: StudyRecord, *, studies: Path) -> Checkpoint:
    """Load the checkpoint that a study delivers."""
    summary = summarise(record, studies=studies)
    if summary.best is None:
        raise StudyError(f"study {record.name!r} has no complete trial yet: resume it with `tuner run`")
    path = summary.delivered if summary.confirmed else summary.checkpoint
    if path is None:
        whose = "of the confirmed winner" if summary.confirmed else f"of trial {summary.best.number}"
        raise CheckpointError(
            f"the checkpoint {whose} of study {record.name!r} is not in {studies / record.name}; "
            "give the folder it was run with (--studies)"
        )
    if summary.confirmed:
        return load_confirmed_checkpoint(record, path)
    return load_trial_checkpoint(record, summary.best, studies=studies)


def _part_of_score(
    record: StudyRecord, checkpoint: Checkpoint, *, studies: Path, is_confirmed: bool, report: Report | None
) -> Part:
    """Load the images that the stored score was computed on. Raises DataError if they have changed."""
    spec = record.data_spec(studies / ".cache")
    parts = fix_parts(spec, report=report)
    are_same = are_images_of(record, parts.development)
    if are_same:
        parts = fix_parts_for(parts, checkpoint.preprocessing, report=report)
        are_same = is_decoded_for(parts.development, checkpoint.preprocessing)
    if not are_same or parts.development.digest != checkpoint.origin.get("dataset_digest"):
        raise DataError(
            f"an export is checked on the images of its study, and those of {spec.dataset!r} have changed since: "
            "put the old ones back"
        )
    if is_confirmed:
        test_set = open_test_set(record, parts.test, report=report)
        part = test_part_of(test_set, development_digest=parts.development.digest)
        return replace(part, repairs=(*parts.development.repairs, *part.repairs))
    return development_part_of(parts.development, "validation", split_seed=checkpoint.origin.get("split_seed"))


def _check_stored(checkpoint: Checkpoint, score: StoredScore, *, num_undecided: int) -> None:
    """Raise CheckpointError unless the network classifies as many images correctly in this process as stored.

    The score may have been computed on a GPU, which rounds differently. It may therefore differ by the number of images
    whose class depends on rounding.
    """
    stored = checkpoint.scores[f"{score.part}_accuracy"] * score.num_images
    if abs(stored - score.num_correct) > num_undecided + 0.01:  # a whole number, but for the rounding of the quotient
        raise CheckpointError(
            f"the network classifies {score.num_correct:,} of {score.num_images:,} {score.part} images correctly, but "
            f"its stored score is {stored:,.2f} images; nothing was exported"
        )


def _write_and_check(
    checkpoint: Checkpoint, part: Part, reference: Reference, *, folder: Path, file_names: Mapping[FormatName, str]
) -> dict[FormatName, Checked]:
    """Write and check each format under its default name, which differs from that of every file of images."""
    program = cache(lambda: traced_program(checkpoint))
    save_images(part, folder, names={FORMATS[name].images for name in file_names})
    checks = {}
    with ThreadPoolExecutor(CHECKS_AT_ONCE) as pool:
        for name, file_name in file_names.items():
            FORMATS[name].write(checkpoint, folder / FORMATS[name].file_name, program)
            checks[name] = pool.submit(
                check,
                FORMATS[name],
                folder,
                reference,
                name=file_name,
                flip_test=checkpoint.flip_test,
                backbone=backbone_of(checkpoint),
            )
    return {name: checked.result() for name, checked in checks.items()}


def _target(output: Path | None, format: FormatName | Literal["all"]) -> _Target:
    """Decide where to write.

    Raises CheckpointError if `output` does not fit the format or would mix with other files.
    """
    others = {Path(FORMATS[name].file_name).suffix: name for name in FORMAT_NAMES}
    if format == "python" or format == "all":
        if output is not None and output.suffix.lower() in {*others, ".py"} and not output.is_dir():
            raise CheckpointError(f"-o {output}: --format {format} writes a folder; give a name without an ending")
        return _folder(output or Path("best"), format)
    output = output or Path(FORMATS[format].file_name)
    if output.is_dir() or not output.suffix:
        return _folder(output, format)
    wanted, suffix = Path(FORMATS[format].file_name).suffix, output.suffix.lower()
    if suffix != wanted and (format != "pt" or suffix in others):  # what torch saves has many endings
        hint = f"--format {others[suffix]} or " if suffix in others else ""
        raise CheckpointError(f"-o {output}: a file of --format {format} ends with {wanted}; give {hint}another name")
    return _Target(output, is_folder=False)


def _folder(output: Path, format: str) -> _Target:
    if output.exists() and not output.is_dir():
        raise CheckpointError(f"-o {output}: --format {format} writes a folder here, and this is a file")
    if output.is_dir() and any(output.iterdir()) and not _is_ours(output):
        raise CheckpointError(
            f"-o {output}: the folder holds other things, with which an export is not mixed; give a new folder"
            + ("" if format in ("python", "all") else ", or the name of a file")
        )
    return _Target(output, is_folder=True)


def _is_ours(folder: Path) -> bool:
    readme = folder / README
    return readme.is_file() and readme.read_bytes().startswith(MARK.encode())


@contextmanager
def _workshop(target: _Target) -> Iterator[Path]:
    """Make a temporary folder beside the target, and remove it at the end.

    Raises CheckpointError if it is not writable.
    """
    parent = target.path.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(parent, target.path.absolute().name)
        folder = temporary_beside(target.path.absolute())
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(f"-o {target.path}: cannot be written: {reason_of(error)}") from error


def _remove_older(folder: Path, written: set[str]) -> tuple[Path, ...]:
    """Remove files that the README of an older export lists and that this export does not write; return them."""
    if not _is_ours(folder):
        return ()
    listed = headings_of((folder / README).read_text(encoding="utf-8"))
    names = [name for one in FORMATS.values() if one.file_name in listed for name in one.files if name not in written]
    older = tuple(folder / name for name in names if (folder / name).is_file())
    for path in older:
        path.unlink()
    return older


def _publish(folder: Path, written: list[str], target: _Target) -> None:
    """Put the files in place: a file or a new folder in one step, and files one by one into an existing folder."""
    if not target.is_folder:
        (folder / written[0]).replace(target.path)
        return
    ready = folder / "ready"
    ready.mkdir()
    for name in written:
        (folder / name).replace(ready / name)
    if not target.path.exists():
        ready.rename(target.path)
        return
    for name in written:
        (ready / name).replace(target.path / name)
