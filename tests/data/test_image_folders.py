import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from sample_data import make_classes, make_spec, save_image

from tuner.data.development_part import load_development
from tuner.data.folder_listing import list_images
from tuner.data.images import Preprocessing, _reason_in_words, read_image
from tuner.data.sealed import fix_parts, load_test_set
from tuner.data.splits import split_development
from tuner.data.unused_files import unused_in_words
from tuner.errors import DataError

BROKEN_FOUR = ("test/dog/000.png", "train/cat/001.png", "train/dog/002.png", "val/dog/000.png")


def greys(images_NCHW: torch.Tensor) -> list[int]:
    return images_NCHW[:, 0, 0, 0].tolist()


def make_parts(root: Path, *, validation: str | None = "val") -> Path:
    make_classes(root / "train", {"cat": 3, "dog": 4})
    make_classes(root / "test", {"cat": 2, "dog": 1}, first=100)
    if validation is not None:
        make_classes(root / validation, {"cat": 1, "dog": 2}, first=200)
    return root


def test_train_and_test_folders_become_the_two_parts(tmp_path: Path) -> None:
    spec = make_spec(make_parts(tmp_path / "pets", validation=None), tmp_path)
    development, test = load_development(spec), load_test_set(spec)
    assert development.name == test.name == "pets"
    assert development.class_names == test.class_names == ("cat", "dog")
    assert development.images_NCHW.shape == (7, 1, 8, 8)
    assert development.images_NCHW.dtype == torch.uint8
    assert development.labels_N.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert development.labels_N.dtype == torch.int64
    assert greys(development.images_NCHW) == [0, 1, 2, 3, 4, 5, 6]
    assert development.validation_indices_N is None
    assert greys(test.images_NCHW) == [100, 101, 102]
    assert test.labels_N.tolist() == [0, 0, 1]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_an_own_validation_folder_follows_the_train_rows(tmp_path: Path, name: str) -> None:
    spec = make_spec(make_parts(tmp_path / "pets", validation=name), tmp_path)
    development = load_development(spec)
    assert greys(development.images_NCHW) == [0, 1, 2, 3, 4, 5, 6, 200, 201, 202]
    assert development.validation_indices_N is not None
    assert development.validation_indices_N.tolist() == [7, 8, 9]
    assert split_development(development, seed=0).validation_indices_N.tolist() == [7, 8, 9]
    assert load_test_set(spec).validation_indices_N is None


def test_class_folders_alone_give_images_of_each_class_to_the_sealed_test_part(tmp_path: Path) -> None:
    spec = make_spec(make_classes(tmp_path / "pets", {"cat": 60, "dog": 40}), tmp_path)
    development, test = load_development(spec), load_test_set(spec)
    counts, of_test = development.labels_N.bincount() + test.labels_N.bincount(), test.labels_N.bincount()
    assert counts.tolist() == [60, 40]
    assert of_test.min() >= 1
    assert sorted(greys(development.images_NCHW) + greys(test.images_NCHW)) == list(range(100))
    assert greys(test.images_NCHW) == sorted(greys(test.images_NCHW))
    shares = (of_test / counts).tolist()
    assert (
        f"pets has no test part: {of_test.sum()} of its 100 images ({of_test.sum() / 100:.1%}; "
        f"{min(shares):.1%} to {max(shares):.1%} of a class), chosen by a hash of each file, are set aside"
    ) in development.notes[0]


def test_train_and_val_without_test_give_a_part_of_train_to_the_test_part(tmp_path: Path) -> None:
    make_classes(tmp_path / "pets" / "train", {"cat": 10, "dog": 10})
    make_classes(tmp_path / "pets" / "val", {"cat": 1, "dog": 1}, first=200)
    spec = make_spec(tmp_path / "pets", tmp_path)
    development, test = load_development(spec), load_test_set(spec)
    assert (development.labels_N.bincount() + test.labels_N.bincount()).tolist() == [11, 11]
    assert set(greys(test.images_NCHW)) <= set(range(20))
    assert greys(development.images_NCHW)[-2:] == [200, 201]
    assert f"{len(test.labels_N)} of its 20 training images" in development.notes[0]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    spec = make_spec(make_classes(tmp_path / "vehicles", {"car": 5, "train": 5}), tmp_path)
    assert load_development(spec).class_names == ("car", "train")


def test_hidden_files_and_files_that_are_no_images_do_not_count(tmp_path: Path) -> None:
    root = make_parts(tmp_path / "pets", validation=None)
    for name in (".hidden.png", "notes.txt", "data.h5", "Thumbs.db"):
        (root / "train" / "cat" / name).write_text("no image")
    make_classes(root / "train" / ".cache", {"cat": 1})
    (root / "__MACOSX").mkdir()
    development = load_development(make_spec(root, tmp_path))
    assert development.class_names == ("cat", "dog")
    assert len(development.labels_N) == 7
    assert development.unused == {".txt": 1, ".h5": 1}


@pytest.mark.parametrize(
    "folder",
    ["@eaDir", "#recycle", "$RECYCLE.BIN", ".thumbnails", "__MACOSX", "lost+found", "System Volume Information"],
)
def test_folders_of_other_programs_are_ignored_at_every_level(tmp_path: Path, folder: str) -> None:
    root = make_parts(tmp_path / "pets", validation=None)
    for beside in (root, root / "train", root / "test", root / "train" / "cat"):
        save_image(beside / folder / "000.png" / "THUMB_M.jpg", "L", colour=9)
        save_image(beside / folder.upper() / "deep" / "001.png", "L", colour=9)
    development = load_development(make_spec(root, tmp_path))
    assert greys(development.images_NCHW) == [0, 1, 2, 3, 4, 5, 6]
    assert not any("ignored" in note for note in development.notes)
    assert development.unused == {}
    images, unused = list_images(root / "train")
    assert len(images) == 7
    assert unused == {}


def test_files_that_are_not_used_are_counted_by_extension_wherever_they_are(tmp_path: Path) -> None:
    root = make_parts(tmp_path / "pets")
    for number in range(3):
        (root / "train" / "cat" / f"{number}.HEIC").write_bytes(b"heic")
    for path in ("README", "train/labels.csv", "test/dog/more/scan", "val/cat/last.heic", "train/dog/.DS_Store"):
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_bytes(b"x")
    save_image(root / "train" / "lonely.png")
    development = load_development(make_spec(root, tmp_path))
    assert development.unused == {".heic": 4, "": 2, ".csv": 1, ".png": 1}
    assert unused_in_words(development.unused) == "4 .heic, 2 without an extension, 1 .csv, 1 .png"
    assert fix_parts(make_spec(root, tmp_path)).development.unused == development.unused


def test_a_folder_of_other_files_alone_is_refused_with_their_number(tmp_path: Path) -> None:
    root = make_parts(tmp_path / "pets")
    for path in (root / "train" / "dog").iterdir():
        path.rename(path.with_suffix(".heic"))
    with pytest.raises(DataError, match=r"dog holds none \(4 \.heic\)"):
        load_development(make_spec(root, tmp_path))
    with pytest.raises(DataError, match=r"must hold some; .*dog holds none \(4 \.heic\)"):
        list_images(root / "train" / "dog")


def test_all_broken_images_are_named_in_one_line(tmp_path: Path) -> None:
    root = make_parts(tmp_path / "pets")
    (root / "train" / "cat" / "001.png").write_bytes(b"")  # found when it is inspected
    break_file(root / "train" / "dog" / "002.png")  # found when it is decoded
    (root / "val" / "dog" / "000.png").write_text("not an image")
    break_file(root / "test" / "dog" / "000.png")
    with pytest.raises(DataError) as caught:
        load_development(make_spec(root, tmp_path))
    message = str(caught.value)
    assert "every image must be readable; 4 of 13 are not: fix or remove " in message
    named = [message.index(str(Path(*name.split("/")))) for name in BROKEN_FOUR]
    assert named == sorted(named)
    assert "\n" not in message


@pytest.mark.parametrize("num_broken", [1, 2])
def test_a_broken_image_is_described_without_the_names_of_pythons_objects(tmp_path: Path, num_broken: int) -> None:
    root = make_classes(tmp_path / "pets", {"cat": 5, "dog": 5})
    for number in range(num_broken):
        (root / "cat" / f"00{number}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"000\.png (is not )?\(it is no image that Pillow can read\)") as caught:
        load_development(make_spec(root, tmp_path))
    assert not set("<>") & set(str(caught.value))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("no decoder in <_io.BytesIO object at 0x7f2a>"), "no decoder in"),
        (PermissionError(13, "Permission denied", "a.png"), "Permission denied"),
        (MemoryError(), "it does not fit into memory"),
        (EOFError(), "it is damaged"),
    ],
)
def test_the_reason_of_a_broken_image_is_in_words(error: Exception, reason: str) -> None:
    assert _reason_in_words(error) == reason


@pytest.mark.parametrize("typed", ["a" * 5000, "a" * 5000 + ".csv", "a" * 5000 + ".npz", "./" + "a" * 300])
def test_a_path_that_is_too_long_for_the_system_is_refused_in_a_short_line(tmp_path: Path, typed: str) -> None:
    with pytest.raises(
        DataError, match=r"must be a path that this system can open; .*a{40}\.\.\..* is too long"
    ) as caught:
        load_development(make_spec(typed, tmp_path))
    assert len(str(caught.value)) < 200


def test_of_many_broken_images_ten_are_named_and_the_others_counted(tmp_path: Path) -> None:
    root = make_classes(tmp_path / "pets", {"cat": 20, "dog": 5})
    for number in range(13):
        (root / "cat" / f"{number:03}.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"13 of 25 are not: .*000\.png.*009\.png \([^,]*\), 3 more$") as caught:
        load_development(make_spec(root, tmp_path))
    assert "010.png" not in str(caught.value)


def test_folders_beside_the_parts_are_ignored_and_named(tmp_path: Path) -> None:
    root = make_parts(tmp_path / "pets")
    (root / "annotations").mkdir()
    assert "ignored: annotations" in load_development(make_spec(root, tmp_path)).notes[0]


def test_extensions_are_known_in_any_case_and_folders_in_class_folders_count(tmp_path: Path) -> None:
    root = make_classes(tmp_path / "pets", {"cat": 5, "dog": 5})
    save_image(root / "cat" / "more" / "one.JPEG", "L", format="JPEG")
    spec = make_spec(root, tmp_path)
    assert len(load_development(spec).labels_N) + len(load_test_set(spec).labels_N) == 11


def test_links_are_followed_but_never_round_and_round(tmp_path: Path) -> None:
    root = make_parts(tmp_path / "pets", validation=None)
    save_image(tmp_path / "elsewhere" / "linked.png", "L", colour=77)
    try:
        (root / "train" / "cat" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        (root / "train" / "cat" / "up").symlink_to(root, target_is_directory=True)
        (tmp_path / "elsewhere" / "back").symlink_to(root / "train" / "cat", target_is_directory=True)
        (root / "train" / "cat" / "itself").symlink_to(root / "train" / "cat" / "itself")
    except OSError:
        pytest.skip("this system does not let us make symbolic links")
    development = load_development(make_spec(root, tmp_path))
    assert greys(development.images_NCHW) == [0, 1, 2, 77, 3, 4, 5, 6]


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    root = make_parts(tmp_path / "pets")
    try:
        (root / "train" / "cat" / "gone.png").symlink_to(tmp_path / "gone.png")
    except OSError:
        pytest.skip("this system does not let us make symbolic links")
    with pytest.raises(DataError, match=r"must be readable.*gone\.png"):
        load_development(make_spec(root, tmp_path))


def test_one_colour_image_makes_the_whole_set_rgb(tmp_path: Path) -> None:
    root = make_parts(tmp_path / "pets", validation=None)
    save_image(root / "train" / "dog" / "colour.png", "RGB", colour=(1, 2, 3))
    spec = make_spec(root, tmp_path)
    assert load_development(spec).images_NCHW.shape == (8, 3, 8, 8)
    assert load_test_set(spec).images_NCHW.shape == (3, 3, 8, 8)


def test_channels_and_size_are_decided_without_looking_at_the_test_part(tmp_path: Path) -> None:
    root = make_parts(tmp_path / "pets", validation=None)
    save_image(root / "test" / "dog" / "colour.png", "RGB", size=(99, 50), colour=(255, 0, 0))
    spec = make_spec(root, tmp_path)
    assert load_development(spec).images_NCHW.shape == (7, 1, 8, 8)
    assert greys(load_test_set(spec).images_NCHW)[-1] == 76


def test_mixed_sizes_are_brought_to_the_median_shorter_side_and_noted(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    make_classes(root / "train", {"cat": 3, "dog": 3}, size=(12, 20))
    make_classes(root / "test", {"cat": 1, "dog": 1})
    save_image(root / "train" / "cat" / "wide.png", "L", size=(30, 10))
    development = load_development(make_spec(root, tmp_path))
    assert development.images_NCHW.shape == (7, 1, 12, 12)
    assert "7 of 7 have another size and are resized to cover 12x12" in development.notes[-1]


def test_the_image_size_asked_for_is_height_and_width(tmp_path: Path) -> None:
    spec = make_spec(make_parts(tmp_path / "pets"), tmp_path, image_size=(5, 7))
    assert load_development(spec).images_NCHW.shape[1:] == (1, 5, 7)
    assert load_test_set(spec).images_NCHW.shape[1:] == (1, 5, 7)


def test_a_single_file_is_read_as_it_was_for_training(tmp_path: Path) -> None:
    root = make_parts(tmp_path / "pets")
    path = root / "train" / "dog" / "zebra.png"
    Image.radial_gradient("L").resize((31, 17)).save(path)
    development = load_development(make_spec(root, tmp_path, image_size=(9, 6)))
    row = development.labels_N.tolist().index(1) + 4
    assert torch.equal(read_image(path, Preprocessing(1, 9, 6, (0.5,), (0.5,))), development.images_NCHW[row])


def remove(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()


def break_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: make_classes(root / "test", {"emu": 1}), r"same classes; .*test has 'emu' and .*train has not"),
        (
            lambda root: make_classes(root / "train", {"emu": 1}),
            r"same classes; .*train has 'emu' and .*test has not|val",
        ),
        (lambda root: remove(root / "train" / "cat"), r"must hold images; .*cat holds none"),
        (lambda root: break_file(root / "train" / "cat" / "001.png"), r"must be readable; .*001\.png is not"),
        (lambda root: break_file(root / "test" / "dog" / "000.png"), r"must be readable; .*000\.png is not"),
        (lambda root: make_classes(root / "valid", {"cat": 1, "dog": 1}), r"one validation part; .*'val', 'valid'"),
        (lambda root: os.rename(root / "train", root / "training"), r"must have train/; .* has 'test', 'val'"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    root = make_parts(tmp_path / "pets")
    change(root)
    with pytest.raises(DataError, match=message) as caught:
        load_development(make_spec(root, tmp_path))
    assert "\n" not in str(caught.value)


def test_one_class_is_too_few(tmp_path: Path) -> None:
    root = make_classes(tmp_path / "pets", {"cat": 9})
    with pytest.raises(DataError, match=r"at least 2 classes; .*pets has 1"):
        load_development(make_spec(root, tmp_path))


def test_parts_under_other_names_are_not_taken_for_classes(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    make_classes(root / "Training", {"cat": 5, "dog": 5})
    make_classes(root / "Testing", {"cat": 5, "dog": 5})
    with pytest.raises(DataError, match=r"'Testing', 'Training'.*must be named train, test and val"):
        load_development(make_spec(root, tmp_path))


def test_a_class_too_small_for_three_parts_is_named(tmp_path: Path) -> None:
    root = make_classes(tmp_path / "pets", {"cat": 9, "dog": 2})
    with pytest.raises(DataError, match=r"each of train, validation, test; 'dog' in .* has 2"):
        load_development(make_spec(root, tmp_path))


def test_a_missing_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must be a folder; .*nowhere does not exist"):
        load_development(make_spec(tmp_path / "nowhere", tmp_path))
    path = save_image(tmp_path / "one.png")
    with pytest.raises(DataError, match=r"must be a folder, an .npz or a .csv file; .*one\.png is a file"):
        load_development(make_spec(path, tmp_path))


def test_a_bomb_in_a_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_parts(tmp_path / "pets")
    save_image(root / "train" / "cat" / "bomb.png", "L", (50, 50))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with pytest.raises(DataError, match=r"bomb\.png is not"):
        load_development(make_spec(root, tmp_path))
