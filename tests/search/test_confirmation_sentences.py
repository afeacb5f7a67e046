"""A confirmation in words, as a note and as lines."""

from tests.ui.synthetic import NOT_COMPARED, confirmation
from tuner.search.confirmation_sentences import (
    baseline_in_words,
    difference_in_words,
    gap_in_words,
    interval_in_words,
    verdict_in_words,
    verdict_lines,
)


def test_the_note_of_a_study_says_the_same_of_its_confirmation() -> None:
    assert "(trial 1, 95.00%): +2.12 points" in verdict_in_words(confirmation())
    assert "the study had 2 trials then" in verdict_in_words(confirmation())
    assert verdict_in_words(confirmation(**NOT_COMPARED)).endswith("beats the first configuration is undecided.")


def test_the_lines_have_every_figure_and_end_with_the_notes() -> None:
    assert verdict_lines(confirmation(notes=["one", "two"])) == [
        "97.12% on 360 sealed images, mean of 3 seeds, 95 % interval 96.00% to 98.00%; the file's own 97.33%",
        "it beats the first configuration (trial 1, 95.00%): difference +2.12 points, +1.00 to +3.12",
        "the search's own figure, 99.00%, was 1.88 points higher",
        "one",
        "two",
    ]


def test_what_is_not_known_is_said_to_be_so() -> None:
    unknown = confirmation(interval=None, difference_interval=None, baseline=None, gap=0.00001)
    assert interval_in_words(unknown) == "no interval"
    assert difference_in_words(unknown) == "+2.12 points, no interval"
    assert difference_in_words(confirmation(**NOT_COMPARED)) == ""
    assert baseline_in_words(unknown) == "the first configuration that was tried"
    assert gap_in_words(unknown) == "the same"
