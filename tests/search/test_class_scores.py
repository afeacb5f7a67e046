"""Scores by class, and the sentences on them."""

from __future__ import annotations

import json

import pytest
from sklearn.metrics import balanced_accuracy_score

from tests.ui.synthetic import confirmation
from tuner.search.class_scores import ClassScores, score_classes, scores_from_confusion
from tuner.search.class_sentences import class_sentences
from tuner.search.confirmation import Confirmation
from tuner.search.confirmation_sentences import verdict_in_words, verdict_lines
from tuner.search.running_trial import RunningTrial

NAMES = ("ant", "bee", "cow")
RARE = ClassScores(0.5, "ant", 0.975, are_uneven=True, unrecognised=("bee",))


def test_balanced_accuracy_is_that_of_scikit_learn() -> None:
    confusion = ((30, 2, 1), (4, 3, 0), (0, 5, 0))
    pairs = [(t, p) for t, row in enumerate(confusion) for p, count in enumerate(row) for _ in range(count)]
    scores = scores_from_confusion(confusion, NAMES, are_uneven=True)
    expected = balanced_accuracy_score([t for t, _ in pairs], [p for _, p in pairs])
    assert scores.balanced_accuracy == pytest.approx(expected)
    assert (scores.largest_class, scores.largest_share) == ("ant", 33 / 45)
    assert scores.unrecognised == ("cow",)


def test_a_class_without_images_has_no_recall_and_is_not_unrecognised() -> None:
    scores = score_classes([0.5, 0, 0], [1, 0, 2], NAMES, are_uneven=False)
    assert (scores.balanced_accuracy, scores.unrecognised, scores.missing) == (0.25, ("cow",), ("bee",))
    assert scores.are_uneven


def test_a_perfect_score_on_images_of_one_class_stands_beside_its_baseline() -> None:
    """A network that always names this class would have the same accuracy."""
    scores = score_classes([40, 0], [40, 0], NAMES[:2], are_uneven=False)
    assert class_sentences(scores, "test images") == [
        "balanced accuracy 100.00%; the largest class, 'ant', has 100.00% of the test images",
        "class 'bee' has no test images, so the accuracy says nothing about it",
    ]
    many = score_classes([40, 0, 0, 0, 0], [40, 0, 0, 0, 0], "abcde", are_uneven=False)
    assert class_sentences(many, "images")[1] == (
        "classes 'b', 'c', 'd' and 1 more have no images, so the accuracy says nothing about them"
    )


def test_sentences_name_what_accuracy_hides_and_nothing_else() -> None:
    assert class_sentences(None, "test images") == []
    assert class_sentences(ClassScores(0.9, "ant", 0.4, are_uneven=False, unrecognised=()), "test images") == []
    assert class_sentences(RARE, "test images") == [
        "balanced accuracy 50.00%; the largest class, 'ant', has 97.50% of the test images",
        "class 'bee' is never recognised: none of its test images is classified correctly",
    ]
    many = ClassScores(0.1, "a", 0.2, are_uneven=False, unrecognised=("a", "b", "c", "d", "e"))
    assert class_sentences(many, "images") == [
        "classes 'a', 'b', 'c' and 2 more are never recognised: none of their images is classified correctly"
    ]


def test_the_verdict_has_the_balanced_accuracy_and_names_a_class_that_is_never_recognised() -> None:
    found = confirmation(class_scores=RARE)
    sentences = class_sentences(RARE, "test images")
    assert verdict_lines(found)[1:3] == sentences
    assert "Class 'bee' is never recognised" in verdict_in_words(found)
    assert "balanced accuracy 50.00%" in verdict_in_words(found).lower()
    assert Confirmation.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert verdict_lines(confirmation())[1].startswith("it beats")


def test_a_trial_stores_the_scores_of_its_best_epoch() -> None:
    running = RunningTrial(0, candidate=None, params={}, started=0.0)  # type: ignore[arg-type]
    assert running.class_attributes(NAMES[:2]) == {}
    running.confusion = ((31, 0), (1, 0))
    assert running.class_attributes(NAMES[:2]) == {
        "class_scores": {
            "balanced_accuracy": 0.5,
            "largest_class": "ant",
            "largest_share": 31 / 32,
            "are_uneven": True,
            "unrecognised": ["bee"],
            "missing": [],
        }
    }
    assert running.class_attributes(()) == {}
