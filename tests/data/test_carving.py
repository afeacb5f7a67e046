"""The test part that is carved from class folders by a hash of each file."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sample_data import make_spec

from tuner.data.carving import LIMIT, _choose, carve, hash_file
from tuner.data.data_checks import refuse_meaningless
from tuner.data.development_part import load_development
from tuner.data.sealed import check_parts, fix_parts, load_test_set
from tuner.errors import DataError

hashes = st.lists(st.integers(0, 2**64 - 1), min_size=3, max_size=40)


def save_photograph(path: Path, number: int) -> None:
    """An image of noise, another for every number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def make_folder(root: Path, *, num_images: int = 50) -> Path:
    for label, name in enumerate(("ant", "bee", "cat")):
        for number in range(num_images):
            save_photograph(root / name / f"{number:03}.png", 1000 * label + number)
    return root


def sides_of(root: Path, tmp_path: Path) -> dict[bytes, str]:
    """For the pixels of each image the part that has it."""
    spec = make_spec(root, tmp_path)
    parts = {"development": load_development(spec), "test": load_test_set(spec)}
    return {image_CHW.numpy().tobytes(): name for name, part in parts.items() for image_CHW in part.images_NCHW}


def test_another_photograph_in_a_class_moves_no_other_image(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "animals")
    before = sides_of(root, tmp_path)
    assert 10 <= list(before.values()).count("test") <= 55  # of 150; far outside chance otherwise
    save_photograph(root / "ant" / "000-new.png", 9_999)
    after = sides_of(root, tmp_path)
    assert len(after) == 151
    assert {pixels: after[pixels] for pixels in before} == before


def test_a_photograph_that_goes_moves_no_other_image(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "animals")
    before = sides_of(root, tmp_path)
    (root / "bee" / "000.png").unlink()
    after = sides_of(root, tmp_path)
    assert len(after) == 149
    assert after == {pixels: before[pixels] for pixels in after}


def test_other_names_of_files_classes_and_folders_move_no_image(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "animals")
    before = sides_of(root, tmp_path)
    for folder in root.iterdir():
        for file in folder.iterdir():
            file.rename(file.with_name(f"{999 - int(file.stem)}.png"))
    (root / "ant").rename(root / "zebra")
    shutil.copytree(root, tmp_path / "elsewhere" / "insects")
    assert sides_of(tmp_path / "elsewhere" / "insects", tmp_path) == before


@given(hashes, st.integers(1, 2))
def test_every_class_has_images_on_both_sides_and_equal_files_share_one(values: list[int], num_left: int) -> None:
    rows = list(range(len(values)))
    chosen, is_bent = _choose(rows, values, num_left=num_left)
    low = [row for row in rows if values[row] < LIMIT]
    if not chosen:
        assert values.count(min(values)) > len(values) - num_left  # without its lowest hash it has too few
        return
    assert len(values) - len(chosen) >= num_left
    assert not {values[row] for row in chosen} & {values[row] for row in rows if row not in chosen}
    assert is_bent == (chosen != low)
    if is_bent and not low:
        assert {values[row] for row in chosen} == {min(values)}
    elif is_bent:
        # Of those below the limit the highest are kept back, and no more than need be.
        assert set(chosen) < set(low)
        kept_back = {values[row] for row in low} - {values[row] for row in chosen}
        assert min(kept_back) > max(values[row] for row in chosen)
        would_leave = [row for row in rows if values[row] > min(kept_back)]
        assert len(would_leave) < num_left


@given(hashes, st.integers(0, 2**64 - 1))
def test_another_file_moves_others_only_where_the_limit_was_moved(values: list[int], new: int) -> None:
    rows = list(range(len(values)))
    before, was_bent = _choose(rows, values, num_left=2)
    after, is_bent = _choose([*rows, len(values)], [*values, new], num_left=2)
    if not was_bent and not is_bent:
        assert [row for row in after if row < len(values)] == before


def test_a_class_without_a_low_hash_gives_its_lowest_and_one_without_a_high_one_keeps_its_highest() -> None:
    high = [LIMIT + 30, LIMIT + 10, LIMIT + 20]
    assert _choose(range(3), high, num_left=2) == ([1], True)
    low = [30, 10, 20, 5]
    assert _choose(range(4), low, num_left=1) == ([1, 2, 3], True)
    assert _choose(range(4), low, num_left=2) == ([1, 3], True)
    assert _choose(range(4), [5, LIMIT, LIMIT + 1, LIMIT + 2], num_left=2) == ([0], False)


def test_a_moved_limit_is_noted_with_its_class(tmp_path: Path) -> None:
    root, number = tmp_path / "animals", 0
    make_folder(root)
    shutil.rmtree(root / "cat")
    while len(list((root / "cat").glob("*"))) < 3:  # three images of a high hash
        path = root / "cat" / f"{number}.png"
        save_photograph(path, 5_000 + number)
        if hash_file(path) < LIMIT:
            path.unlink()
        number += 1
    note = load_development(make_spec(root, tmp_path)).notes[0]
    assert "in 1 class ('cat') the limit was moved, so that every part has images of each class" in note
    assert load_test_set(make_spec(root, tmp_path)).labels_N.tolist().count(2) == 1


def test_copies_of_a_file_in_one_class_are_on_one_side(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "animals", num_images=10)
    for file in list((root / "ant").iterdir()):
        shutil.copyfile(file, file.with_name(f"copy-{file.name}"))
    spec = make_spec(root, tmp_path)
    in_development, in_test = (
        {image_CHW.numpy().tobytes() for image_CHW in part.images_NCHW}
        for part in (load_development(spec), load_test_set(spec))
    )
    assert len(in_development | in_test) == 30
    assert not in_development & in_test


def test_a_class_of_copies_of_few_files_cannot_be_carved_and_is_named() -> None:
    """The lower hash is that of all images but one."""
    with pytest.raises(DataError, match=r"'bee' has 5 files, 2 of them different: add images") as caught:
        carve([7, 7, 7, 7, 8], np.zeros(5, np.int64), ["bee"], num_left=2, kind="files")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("num_copies", "num_test"), [(3, 1), (5, 1), (6, 2), (50, 10)])
def test_a_class_of_copies_of_one_file_is_on_both_sides_and_is_noted(
    tmp_path: Path, num_copies: int, num_test: int
) -> None:
    root = make_folder(tmp_path / "animals", num_images=20)
    before = sides_of(root, tmp_path)
    shutil.rmtree(root / "bee")
    for number in range(num_copies):
        save_photograph(root / "bee" / f"{number}.png", 4_000)
    development, test = load_development(make_spec(root, tmp_path)), load_test_set(make_spec(root, tmp_path))
    assert test.labels_N.tolist().count(1) == num_test
    assert development.labels_N.tolist().count(1) == num_copies - num_test
    assert "; in 1 class ('bee') all images are the same, and every part has some of them" in development.notes[0]
    others = {pixels: side for pixels, side in sides_of(root, tmp_path).items() if pixels in before}
    assert others == {pixels: before[pixels] for pixels in others}


@pytest.mark.parametrize("form", ["folder", "npz"])
def test_a_class_of_copies_is_carved_but_refused_by_the_checks_unless_they_are_allowed(
    tmp_path: Path, form: str
) -> None:
    random = np.random.default_rng(0)
    images_NHW = random.integers(0, 256, (40, 8, 8), dtype=np.uint8)
    images_NHW[20:] = images_NHW[20]
    root = tmp_path / "pets"
    if form == "npz":
        root = tmp_path / "pets.npz"
        np.savez(root, images=images_NHW, labels=np.repeat(["ant", "bee"], 20))
    else:
        for number, image_HW in enumerate(images_NHW):
            path = root / ("ant", "bee")[number // 20] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image_HW).save(path)
    checks = check_parts(fix_parts(make_spec(root, tmp_path)))
    assert checks.problems == ("duplicates", "constant")
    with pytest.raises(DataError, match=r"only one distinct image: 'bee' \(20 images\) \(--allow constant\)"):
        refuse_meaningless(checks, "pets", allowed=["duplicates"])
    refuse_meaningless(checks, "pets", allowed=["duplicates", "constant"])


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must be readable; .*gone\.png"):
        hash_file(tmp_path / "gone.png")
