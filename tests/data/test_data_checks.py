"""What a look at a data set finds before anything is trained, and what it refuses."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample_data import make_spec, write_mnist

from tuner.data import cache
from tuner.data.data_checks import (
    DataChecks,
    are_uneven,
    compare_parts,
    count_shared,
    problem_in_words,
    refuse_meaningless,
)
from tuner.data.dataset import DataSpec
from tuner.data.image_records import RECORD, PartRecords, describe_pixels, find_records
from tuner.data.sealed import check_parts, fix_parts
from tuner.errors import DataError
from tuner.formats import NewerFormatError


def noise(number: int, size: tuple[int, int] = (8, 8)) -> Image.Image:
    """An image of noise, another for every number; size is Pillow's (width, height)."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, size[::-1], dtype=np.uint8))


def save_noise(folder: Path, numbers: Sequence[int], *, size: tuple[int, int] = (8, 8)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        noise(number, size).save(folder / f"{number:05}.png")
    return folder


def make_set(root: Path, *, num_ants: int = 12, num_bees: int = 12, num_test: int = 4) -> Path:
    """Noise in two classes, in train/ and test/, no two images alike."""
    for label, (name, number) in enumerate((("ant", num_ants), ("bee", num_bees))):
        save_noise(root / "train" / name, range(1000 * label, 1000 * label + number))
        save_noise(root / "test" / name, range(10_000 + 1000 * label, 10_000 + 1000 * label + num_test))
    return root


def look(root: Path, tmp_path: Path, **options: object) -> DataChecks:
    return check_parts(fix_parts(make_spec(root, tmp_path, **options)))


def test_nothing_is_found_in_a_set_without_faults(tmp_path: Path) -> None:
    checks = look(make_set(tmp_path / "pets"), tmp_path)
    assert checks == DataChecks(
        class_names=("ant", "bee"),
        num_development=(12, 12),
        num_test=(4, 4),
        num_distinct=(16, 16),
        num_validation=0,
        test_in_development=0,
        validation_in_train=0,
        repeated_development=0,
        repeated_test=0,
        two_labels=0,
        constant_images=0,
        cropped_mean=0.0,
        cropped_most=0.0,
        faint_images=0,
    )
    assert (checks.problems, checks.are_classes_uneven, checks.few_classes) == ((), False, ())
    refuse_meaningless(checks, "pets", allowed=())


def copy_train_to_test(root: Path) -> None:
    shutil.rmtree(root / "test")
    shutil.copytree(root / "train", root / "test")


def make_ants_alike(root: Path) -> None:
    for path in [*(root / "train" / "ant").iterdir(), *(root / "test" / "ant").iterdir()]:
        noise(7).save(path)


def make_all_white(root: Path) -> None:
    for path in root.rglob("*.png"):
        Image.new("L", (8, 8), 255).save(path)


def put_ants_among_bees(root: Path) -> None:
    for number in range(3):  # other files of the same pixels
        noise(number).save(root / "train" / "bee" / f"{number}.bmp")


@pytest.mark.parametrize(
    ("change", "problems", "words"),
    [
        (
            copy_train_to_test,
            ("duplicates",),
            r"24 of the 24 test images \(100\.0%\) are also among the training and validation images, pixel for pixel",
        ),
        (make_ants_alike, ("duplicates", "constant"), r"1 of 2 classes has only one distinct image: 'ant' \(16 im"),
        (put_ants_among_bees, ("labels",), r"6 of all 35 images \(17\.1%\) are also in the data set under another lab"),
        (make_all_white, ("duplicates", "constant", "labels"), r"'ant' \(16 images\), 'bee' \(16 images\)"),
    ],
)
def test_what_makes_scores_meaningless_is_refused_in_one_line_unless_it_is_allowed(
    tmp_path: Path, change: Callable[[Path], None], problems: tuple[str, ...], words: str
) -> None:
    root = make_set(tmp_path / "pets")
    change(root)
    checks = look(root, tmp_path)
    assert checks.problems == problems
    with pytest.raises(DataError, match=words) as caught:
        refuse_meaningless(checks, "pets", allowed=())
    assert "\n" not in str(caught.value)
    for problem in problems:
        assert f"{problem_in_words(checks, problem)} (--allow {problem})" in str(caught.value)
        others = set(problems) - {problem}
        with pytest.raises(DataError, match=f"allow {problem}") as caught_again:
            refuse_meaningless(checks, "pets", allowed=others)
        assert not any(f"--allow {other}" in str(caught_again.value) for other in others)
    refuse_meaningless(checks, "pets", allowed=problems)


@pytest.mark.parametrize(("num_shared", "is_problem"), [(1, False), (2, True)])
def test_duplicates_are_a_problem_above_one_percent_of_the_test_images(
    tmp_path: Path, num_shared: int, is_problem: bool
) -> None:
    root = make_set(tmp_path / "pets", num_test=50)
    for number in range(num_shared):
        noise(number).save(root / "test" / "ant" / f"{10_000 + number:05}.png")
    checks = look(root, tmp_path)
    assert checks.test_in_development == num_shared
    assert checks.problems == (("duplicates",) if is_problem else ())


def test_repeats_within_and_between_the_other_parts_are_counted(tmp_path: Path) -> None:
    root = make_set(tmp_path / "pets")
    save_noise(root / "val" / "ant", [0, 1, 5000])
    save_noise(root / "val" / "bee", [6000, 6001])
    for part, number in (("train", 1002), ("val", 6001), ("test", 11_000)):
        noise(number).save(root / part / "bee" / "again.png")
    checks = look(root, tmp_path)
    assert checks.num_validation == 6
    assert checks.validation_in_train == 2
    assert checks.repeated_development == 4
    assert checks.repeated_test == 1
    assert checks.problems == ()


def test_sizes_of_classes_and_constant_images_are_counted(tmp_path: Path) -> None:
    root = make_set(tmp_path / "pets", num_ants=31, num_bees=9)
    for level in range(3):
        Image.new("L", (8, 8), level).save(root / "train" / "ant" / f"{level:05}.png")
    checks = look(root, tmp_path)
    assert checks.constant_images == 3
    assert (checks.largest_class, checks.smallest_class, checks.largest_share) == (0, 1, 31 / 40)
    assert checks.are_classes_uneven
    assert checks.few_classes == (1,)
    assert not are_uneven([30, 10])
    assert are_uneven([31, 10])
    assert are_uneven([31, 10, 0])
    assert not are_uneven([])


def test_the_crop_takes_away_what_lies_outside_the_centre(tmp_path: Path) -> None:
    root = make_set(tmp_path / "pets")
    save_noise(root / "train" / "ant", range(12), size=(16, 8))
    checks = look(root, tmp_path, image_size=(8, 8))
    assert checks.cropped_mean == pytest.approx(12 * 0.5 / 32)
    assert checks.cropped_most == pytest.approx(0.5)
    assert look(root, tmp_path, image_size=(4, 8)).cropped_most == pytest.approx(0.5)


def test_the_crop_of_test_images_counts_too(tmp_path: Path) -> None:
    root = make_set(tmp_path / "pets", num_ants=3, num_bees=3, num_test=1)
    save_noise(root / "test" / "ant", range(10_000, 10_001), size=(16, 8))
    checks = look(root, tmp_path)
    assert checks.cropped_mean == pytest.approx(0.5 / 8)
    assert checks.cropped_most == pytest.approx(0.5)


def test_a_few_extreme_values_that_make_all_other_images_faint_are_noticed(tmp_path: Path) -> None:
    """A 12-bit sensor with two hot pixels: the range of the set leaves 16 levels of 256 to all other values."""
    root = make_set(tmp_path / "pets")
    for path in root.rglob("*.png"):
        levels = np.asarray(Image.open(path)).astype(np.uint16) * 14
        if path.stem in ("00000", "01000"):
            levels[0, 0] = 65_535
        Image.fromarray(levels).save(path)
    checks = look(root, tmp_path)
    assert (checks.constant_images, checks.faint_images, checks.total) == (0, 30, 32)


def test_checks_survive_json_and_newer_ones_are_refused(tmp_path: Path) -> None:
    root = make_set(tmp_path / "pets")
    copy_train_to_test(root)
    (root / "train" / "notes.txt").write_text("x")
    checks = look(root, tmp_path)
    stored = json.loads(json.dumps(checks.to_json()))
    assert DataChecks.from_json(stored) == checks
    assert stored["problems"] == ["duplicates"]
    assert stored["unused"] == {".txt": 1}
    with pytest.raises(NewerFormatError):
        DataChecks.from_json({**stored, "format": 99})


def test_records_hold_digests_extremes_and_the_source_of_each_image(tmp_path: Path) -> None:
    root = make_set(tmp_path / "pets")
    save_noise(root / "train" / "ant", [0], size=(20, 10))
    shutil.copyfile(root / "train" / "ant" / "00001.png", root / "train" / "bee" / "01001.png")
    development = fix_parts(make_spec(root, tmp_path, image_size=(8, 8))).development
    records_N = cache.load_records(development.folder).records_N
    assert records_N.dtype == RECORD
    pixels_NB = development.images_NCHW.numpy().reshape(24, -1)
    assert records_N["low"].tolist() == pixels_NB.min(axis=1).tolist()
    assert records_N["high"].tolist() == pixels_NB.max(axis=1).tolist()
    assert records_N["pixels"].tolist() == describe_pixels(pixels_NB)["pixels"].tolist()
    assert (records_N["height"].tolist(), records_N["width"].tolist()) == ([10] + [8] * 23, [20] + [8] * 23)
    assert records_N["source"][1] == records_N["source"][13] != records_N["source"][2]
    assert records_N["pixels"][1] == records_N["pixels"][13]


def test_the_images_of_an_array_have_records_too(tmp_path: Path) -> None:
    write_mnist(tmp_path / "downloads" / "MNIST" / "raw")
    small = DataSpec("mnist", tmp_path / "downloads", tmp_path / "cache", image_size=(8, 8), download=False)
    records_N = cache.load_records(fix_parts(small).development.folder).records_N
    assert set(records_N["height"].tolist()) == set(records_N["width"].tolist()) == {28}
    assert len(set(records_N["source"].tolist())) == 40
    whole = cache.load_records(fix_parts(replace(small, image_size=None)).development.folder).records_N
    assert whole["source"].tolist() == whole["pixels"].tolist() == records_N["source"].tolist()


@pytest.mark.parametrize("damage", ["missing", "cut short", "of other images"])
def test_a_cache_without_usable_records_gets_them_once(tmp_path: Path, damage: str) -> None:
    parts = fix_parts(make_spec(make_set(tmp_path / "pets"), tmp_path))
    expected, digest = check_parts(parts), cache.load_meta(parts.test.cached.folder).pixels_digest
    for folder in (parts.development.folder, parts.test.cached.folder):
        file = folder / "records.npz"
        if damage == "missing":
            file.unlink()
        elif damage == "cut short":
            file.write_bytes(file.read_bytes()[:-40])
        else:
            other = fix_parts(make_spec(tmp_path / "pets", tmp_path, image_size=(4, 4)))
            shutil.copyfile(other.development.folder / "records.npz", file)
    found = check_parts(parts)
    assert replace(found, cropped_mean=0.0, cropped_most=0.0) == expected
    assert found.cropped_mean is None  # the cache alone does not know the original sizes
    assert find_records(parts.test.cached.folder, pixels_digest=digest) is not None


def test_damaged_images_without_records_are_decoded_again_and_never_described(tmp_path: Path) -> None:
    parts = fix_parts(make_spec(make_set(tmp_path / "pets"), tmp_path))
    expected, folder = check_parts(parts), parts.test.cached.folder
    (folder / "records.npz").unlink()
    images = folder / "images.npy"
    images.write_bytes(images.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="is damaged"):
        cache.load_records(folder)
    assert check_parts(parts) == expected


def test_shared_images_are_counted_whatever_their_order() -> None:
    random = np.random.default_rng(0)
    rows_NB = random.integers(0, 256, (60, 12), dtype=np.uint8)
    records_N, labels_N = describe_pixels(rows_NB), np.arange(60) % 3
    first, second = (PartRecords(records_N[rows], labels_N[rows]) for rows in (slice(0, 40), [59, 3, 3, 50, 39]))
    assert count_shared(first, second) == 3
    checks = compare_parts(first, second, "abc", validation_start=30, image_size=(3, 4), unused={})
    assert (checks.test_in_development, checks.repeated_test, checks.num_validation) == (3, 1, 10)
    assert checks.cropped_mean is None
