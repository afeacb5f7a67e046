"""Sentences about the classes that a network recognises."""

from __future__ import annotations

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
    if scores.unrecognised:
        names = ", ".join(map(repr, scores.unrecognised[:NUM_NAMED]))
        if len(scores.unrecognised) > NUM_NAMED:
            names += f" and {len(scores.unrecognised) - NUM_NAMED:,} more"
        is_one = len(scores.unrecognised) == 1
        classes, whose = ("class {} is", "its") if is_one else ("classes {} are", "their")
        sentences.append(f"{classes.format(names)} never recognised: none of {whose} {images} is classified correctly")
    return sentences


def largest_class_in_words(scores: ClassScores, images: str) -> str:
    """Describe the accuracy of always naming the largest class."""
    return f"the largest class, {scores.largest_class!r}, has {scores.largest_share:.2%} of the {images}"
