"""The lines on what was found in a data set."""

from __future__ import annotations

from dataclasses import replace

from tuner.data.data_checks import DataChecks
from tuner.ui.check_lines import check_lines, found_lines

CLEAN = DataChecks(
    class_names=("ant", "bee", "cow"),
    num_development=(400, 300, 300),
    num_test=(100, 80, 70),
    num_distinct=(500, 380, 370),
    num_validation=0,
    test_in_development=0,
    validation_in_train=0,
    repeated_development=0,
    repeated_test=0,
    two_labels=0,
    constant_images=0,
    cropped_mean=0.0,
    cropped_most=0.0,
)


def test_a_set_without_faults_has_its_sizes_and_nothing_else() -> None:
    assert found_lines(CLEAN) == []
    assert check_lines(CLEAN, "pets") == [
        "pets: 1,000 training and validation images, 250 test images, 3 classes",
        "the largest class, 'ant', has 40.0% of the training and validation images; the smallest, 'bee', has 30.0%",
        "nothing else was found",
    ]


def test_each_finding_has_one_line_with_its_numbers() -> None:
    faulty = replace(
        CLEAN,
        num_development=(990, 7, 3),
        num_distinct=(1000, 87, 1),
        num_validation=200,
        test_in_development=2,
        validation_in_train=5,
        repeated_development=6,
        repeated_test=4,
        two_labels=10,
        constant_images=8,
        faint_images=13,
        cropped_mean=0.25,
        cropped_most=0.5,
        unused={".heic": 80, "": 10},
    )
    lines = [
        "2 of the 250 test images (0.8%) are also among the training and validation images, pixel for pixel",
        "10 of all 1,250 images (0.8%) are also in the data set under another label, pixel for pixel",
        "1 of 3 classes has only one distinct image: 'cow' (73 images)",
        "5 of the 200 validation images are also among the training images, pixel for pixel",
        "6 of the 1,000 training and validation images repeat another one, pixel for pixel",
        "4 of the 250 test images repeat another one, pixel for pixel",
        "8 of all 1,250 images are constant: one value in every pixel",
        "13 of all 1,250 images are almost constant: their values differ by less than 16 of 255",
        "the largest class, 'ant', has 99.0% of the training and validation images; the smallest, 'cow', has 0.3%",
        "2 classes have fewer than 10 training and validation images: 'bee' (7), 'cow' (3)",
        "the centre crop takes away 25.0% of the pixels of an image on average, and at most 50.0%",
        "files that are not used: 80 .heic, 10 without an extension",
    ]
    assert found_lines(faulty) == lines
    marked = [line for line in check_lines(faulty, "pets") if line.endswith(")") and "--allow" in line]
    assert marked == [f"{lines[2]} (an error without --allow constant)"]
    assert f"{lines[2]} (allowed by --allow constant)" in check_lines(faulty, "pets", allowed=["constant"])
    without_own = replace(faulty, num_validation=0, validation_in_train=0)
    assert f"{lines[4]}, so the same image may be on both sides of a split" in found_lines(without_own)


def test_a_single_image_is_reported_in_the_singular() -> None:
    ones = dict.fromkeys(("test_in_development", "repeated_development", "repeated_test", "constant_images"), 1)
    faulty = replace(CLEAN, num_validation=200, validation_in_train=1, faint_images=1, **ones)
    assert found_lines(faulty, is_complete=True) == [
        "1 of the 250 test images (0.4%) is also among the training and validation images, pixel for pixel",
        "1 of the 200 validation images is also among the training images, pixel for pixel",
        "1 of the 1,000 training and validation images repeats another one, pixel for pixel",
        "1 of the 250 test images repeats another one, pixel for pixel",
        "1 of all 1,250 images is constant: one value in every pixel",
        "1 of all 1,250 images is almost constant: its values differ by less than 16 of 255",
    ]


def test_a_few_images_that_are_almost_constant_are_reported_by_check_alone() -> None:
    few = replace(CLEAN, faint_images=12)
    assert found_lines(few) == []
    assert found_lines(few, is_complete=True) == [
        "12 of all 1,250 images are almost constant: their values differ by less than 16 of 255"
    ]


def test_classes_without_test_images_are_named_beside_the_share_of_the_largest() -> None:
    one_class = replace(CLEAN, num_test=(250, 0, 0), num_distinct=(650, 300, 300))
    assert found_lines(one_class) == [
        "2 classes have no test images, so the test accuracy says nothing about them: 'bee', 'cow'; "
        "the largest class, 'ant', has 100.0% of the test images"
    ]
    (line,) = found_lines(replace(CLEAN, num_test=(130, 120, 0)))
    assert line.startswith("1 class has no test images, so the test accuracy says nothing about it: 'cow'; ")
    assert line.endswith("'ant', has 52.0% of the test images")
    assert one_class.to_json()["untested_classes"] == ["bee", "cow"]


def test_a_run_reports_a_crop_only_if_it_takes_much_and_many_classes_are_counted() -> None:
    small = replace(CLEAN, cropped_mean=0.004, cropped_most=0.02)
    assert found_lines(small) == []
    assert "takes away 0.4%" in check_lines(small, "pets")[-1]
    names = tuple(f"c{number}" for number in range(20))
    few = replace(CLEAN, class_names=names, num_development=(9,) * 20, num_test=(1,) * 20, num_distinct=(5,) * 20)
    (line,) = found_lines(few)
    assert line.startswith("20 classes have fewer than 10 training and validation images: 'c0' (9), ")
    assert line.endswith("'c4' (9) and 15 more")
