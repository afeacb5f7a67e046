"""Sentences about the classes that a network recognises."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.search.class_scores import ClassScores

NUM_NAMED = 3
"""Number of classes that a sentence names; the others are counted."""


def class_sentences(scores: ClassScores | None, images: str) -> list[str]:
    """Describe what accuracy hides: nothing for classes of similar size that are all recognised sometimes.

    images: what was scored, such as `test images`.
    """
    if scores is None:
        return []
    sentences = []
    if scores.are_uneven:
        sentences.append(f"balanced accuracy {scores.balanced_accuracy:.2%}; {largest_class_in_words(scores, images)}")
    if scores.missing:
        has, them = ("class {} has", "it") if len(scores.missing) == 1 else ("classes {} have", "them")
        sentences.append(f"{has.format(_named(scores.missing))} no {images}, so the accuracy says nothing about {them}")
    if scores.unrecognised:
        is_one = len(scores.unrecognised) == 1
        classes, whose = ("class {} is", "its") if is_one else ("classes {} are", "their")
        names = _named(scores.unrecognised)
        sentences.append(f"{classes.format(names)} never recognised: none of {whose} {images} is classified correctly")
    return sentences


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NUM_NAMED:,} more" if len(names) > NUM_NAMED else ""
    return ", ".join(map(repr, names[:NUM_NAMED])) + more


def largest_class_in_words(scores: ClassScores, images: str) -> str:
    """Describe the accuracy of always naming the largest class."""
    return f"the largest class, {scores.largest_class!r}, has {scores.largest_share:.2%} of the {images}"
