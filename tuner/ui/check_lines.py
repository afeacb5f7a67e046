"""Lines on what was found in a data set before anything was trained on it."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from tuner.data.data_checks import FEW, DataChecks, is_or_are, problem_in_words
from tuner.data.reading import VISIBLE
from tuner.data.unused_files import unused_in_words

LEAST_CROPPED = 0.01
"""Mean share of the pixels that a centre crop takes away, from which `run` reports it."""
LEAST_FAINT = 0.01
"""Share of all images that are almost constant, from which `run` reports them."""
NUM_NAMED = 5
"""Number of classes that a line names; the others are counted."""


def check_lines(checks: DataChecks, name: str, *, allowed: Collection[str] = ()) -> list[str]:
    """Describe a data set: its images and classes, then what was found; an error is marked unless it is allowed."""
    heading = (
        f"{name}: {checks.total_development:,} training and validation images, {checks.total_test:,} test images, "
        f"{len(checks.class_names):,} classes"
    )
    marks = {
        problem: f"allowed by --allow {problem}" if problem in allowed else f"an error without --allow {problem}"
        for problem in checks.problems
    }
    found = found_lines(checks, is_complete=True, marks=marks)
    return [heading, classes_line(checks), *(found or ["nothing else was found"])]


def classes_line(checks: DataChecks) -> str:
    """Describe the sizes of the classes."""
    largest, smallest = checks.largest_class, checks.smallest_class
    if largest == smallest:
        return f"each of the {len(checks.class_names):,} classes has the same number of training and validation images"
    share = checks.num_development[smallest] / checks.total_development
    return (
        f"the largest class, {checks.class_names[largest]!r}, has {checks.largest_share:.1%} of the training and "
        f"validation images; the smallest, {checks.class_names[smallest]!r}, has {share:.1%}"
    )


def found_lines(checks: DataChecks, *, is_complete: bool = False, marks: dict[str, str] | None = None) -> list[str]:
    """Describe what was found, one line each; nothing for what was not found.

    is_complete: whether the sizes of classes are described elsewhere, and crops of any size and any number of almost
    constant images are reported. marks: what is added to the line of a problem, by its name.
    """
    marks = marks or {}
    lines = []
    for problem, number in (
        ("duplicates", checks.test_in_development),
        ("labels", checks.two_labels),
        ("constant", len(checks.constant_classes)),
    ):
        if number:
            mark = f" ({marks[problem]})" if problem in marks else ""
            lines.append(problem_in_words(checks, problem) + mark)
    lines += _repeats(checks)
    if checks.constant_images:
        lines.append(
            f"{checks.constant_images:,} of all {checks.total:,} images {is_or_are(checks.constant_images)} constant: "
            "one value in every pixel"
        )
    if checks.faint_images and (is_complete or checks.faint_images >= LEAST_FAINT * checks.total):
        their = "its" if checks.faint_images == 1 else "their"
        lines.append(
            f"{checks.faint_images:,} of all {checks.total:,} images {is_or_are(checks.faint_images)} almost constant: "
            f"{their} values differ by less than {VISIBLE} of 255"
        )
    if checks.are_classes_uneven and not is_complete:
        lines.append(classes_line(checks))
    if checks.untested_classes:
        lines.append(_untested_line(checks))
    if checks.few_classes:
        each = [f"{checks.class_names[label]!r} ({checks.num_development[label]:,})" for label in checks.few_classes]
        more = f" and {len(each) - NUM_NAMED:,} more" if len(each) > NUM_NAMED else ""
        have = "class has" if len(each) == 1 else "classes have"
        lines.append(
            f"{len(each):,} {have} fewer than {FEW} training and validation images: {', '.join(each[:NUM_NAMED])}{more}"
        )
    if checks.cropped_mean is not None and checks.cropped_mean >= (0.0005 if is_complete else LEAST_CROPPED):
        lines.append(
            f"the centre crop takes away {checks.cropped_mean:.1%} of the pixels of an image on average, and at most "
            f"{checks.cropped_most:.1%}"
        )
    if checks.unused:
        lines.append(f"files that are not used: {unused_in_words(checks.unused)}")
    return lines


def _untested_line(checks: DataChecks) -> str:
    untested = [checks.class_names[label] for label in checks.untested_classes]
    more = f" and {len(untested) - NUM_NAMED:,} more" if len(untested) > NUM_NAMED else ""
    have, them = ("class has", "it") if len(untested) == 1 else ("classes have", "them")
    largest = max(range(len(checks.num_test)), key=lambda label: checks.num_test[label])
    return (
        f"{len(untested):,} {have} no test images, so the test accuracy says nothing about {them}: "
        f"{', '.join(map(repr, untested[:NUM_NAMED]))}{more}; the largest class, {checks.class_names[largest]!r}, has "
        f"{checks.num_test[largest] / checks.total_test:.1%} of the test images"
    )


def _repeats(checks: DataChecks) -> Iterator[str]:
    if checks.validation_in_train:
        yield (
            f"{checks.validation_in_train:,} of the {checks.num_validation:,} validation images "
            f"{is_or_are(checks.validation_in_train)} also among the training images, pixel for pixel"
        )
    if checks.repeated_development:
        split = "" if checks.num_validation else ", so the same image may be on both sides of a split"
        yield (
            f"{checks.repeated_development:,} of the {checks.total_development:,} training and validation images "
            f"{_repeat(checks.repeated_development)}{split}"
        )
    if checks.repeated_test:
        yield f"{checks.repeated_test:,} of the {checks.total_test:,} test images {_repeat(checks.repeated_test)}"


def _repeat(number: int) -> str:
    return f"{'repeats' if number == 1 else 'repeat'} another one, pixel for pixel"
