import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from sample_data import make_classes, make_spec, save_image

from tuner.data import images
from tuner.data.cache import is_intact
from tuner.data.development_part import DataSpec, load_cached, load_development
from tuner.data.digests import hash_array
from tuner.data.images import read_hashed_pixels
from tuner.data.sealed import load_test_set
from tuner.errors import DataError


@pytest.fixture
def spec(tmp_path: Path) -> DataSpec:
    make_classes(tmp_path / "pets" / "train", {"cat": 4, "dog": 4})
    make_classes(tmp_path / "pets" / "test", {"cat": 2, "dog": 2}, first=100)
    return make_spec(tmp_path / "pets", tmp_path)


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("an image was opened")

    monkeypatch.setattr("PIL.Image.open", refuse)


def cache_folders(spec: DataSpec) -> list[str]:
    return sorted(path.name for path in spec.cache_dir.iterdir() if path.name != "listings")


def test_the_second_start_opens_no_image(spec: DataSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_development(spec)
    forbid_decoding(monkeypatch)
    again, test = load_development(spec), load_test_set(spec)
    assert torch.equal(first.images_NCHW, again.images_NCHW)
    assert (first.digest, first.notes, first.folder) == (again.digest, again.notes, again.folder)
    assert len(test.labels_N) == 4


def test_the_parts_lie_in_folders_of_their_own(spec: DataSpec) -> None:
    assert load_development(spec).folder != load_test_set(spec).folder
    assert len(cache_folders(spec)) == 2


def test_images_are_mapped_from_the_file_and_writing_to_them_leaves_it_alone(spec: DataSpec) -> None:
    dataset = load_development(spec)
    dataset.images_NCHW[0] = 99
    assert load_cached(dataset.folder).images_NCHW[0].max() == 0


def test_a_set_larger_than_the_machines_memory_is_opened_and_read_where_it_is_asked_for(spec: DataSpec) -> None:
    dataset = load_development(spec)
    num_images = 2 * psutil.virtual_memory().total // dataset.images_NCHW[0].numel()
    file = dataset.folder / "images.npy"
    before = dataset.images_NCHW[0].clone()
    shape = (num_images, *dataset.images_NCHW.shape[1:])
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with file.open("r+b") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(before.numpy().tobytes())
        stream.truncate(stream.tell() + (num_images - 1) * before.numel())  # a hole: it takes no room on the disk
    meta = json.loads((dataset.folder / "meta.json").read_text(encoding="utf-8"))
    meta["sizes"]["images.npy"] = file.stat().st_size
    (dataset.folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    images_NCHW = load_cached(dataset.folder).images_NCHW
    assert images_NCHW.shape == shape
    assert torch.equal(images_NCHW[0], before)
    assert images_NCHW[-1].max() == 0


def test_a_changed_image_gives_another_data_set(spec: DataSpec) -> None:
    before = load_development(spec)
    save_image(Path(spec.dataset) / "train" / "cat" / "000.png", "L", colour=200)
    after = load_development(spec)
    assert before.digest != after.digest
    assert after.images_NCHW[0, 0, 0, 0] == 200


def test_other_pixels_of_the_same_size_and_modification_time_are_noticed(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            for number in range(2):
                save_image(tmp_path / "pets" / part / name / f"{number}.bmp", "L", colour=number)
    spec = make_spec(tmp_path / "pets", tmp_path)
    assert load_development(spec).images_NCHW[0, 0, 0, 0] == 0
    path = tmp_path / "pets" / "train" / "cat" / "0.bmp"
    before = path.stat()
    save_image(path, "L", colour=200)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert load_development(spec).images_NCHW[0, 0, 0, 0] == 200


@pytest.mark.parametrize("change", ["added", "removed"])
def test_a_changed_listing_is_noticed(spec: DataSpec, change: str) -> None:
    before = load_development(spec)
    path = Path(spec.dataset) / "train" / "cat" / "000.png"
    if change == "added":
        shutil.copy2(path, path.with_name("copy.png"))
    else:
        path.unlink()
    assert load_development(spec).digest != before.digest


@pytest.mark.parametrize("dataset", ["pets", "digits"])
def test_another_image_size_has_the_same_digest_and_a_cached_part_of_its_own(spec: DataSpec, dataset: str) -> None:
    sizes = [None, (8, 8), (4, 4), (5, 6)]
    if dataset == "digits":
        spec = replace(spec, dataset="digits")
    specs = [replace(spec, image_size=size) for size in sizes]
    for load in (load_development, load_test_set):
        parts = [load(one) for one in specs]
        assert len({part.digest for part in parts}) == 1
        assert [part.image_size for part in parts] == [(8, 8), (8, 8), (4, 4), (5, 6)]
        assert [part.folder for part in parts[2:]] == [load(one).folder for one in specs[2:]]
        assert len({part.folder for part in parts}) == 3
    assert len(cache_folders(spec)) == 6
    assert len(list((spec.cache_dir / "listings").iterdir())) == 4


def test_a_file_of_equal_pixels_and_other_bytes_gives_another_digest(spec: DataSpec) -> None:
    before = load_development(spec)
    path = Path(spec.dataset) / "train" / "cat" / "000.png"
    path.write_bytes(path.read_bytes() + b"\0")
    after = load_development(spec)
    assert torch.equal(before.images_NCHW, after.images_NCHW)
    assert before.digest != after.digest
    assert before.folder != after.folder


def test_a_changed_file_is_noticed_by_the_digest_where_its_pixels_are_lost_in_resizing(spec: DataSpec) -> None:
    spec = replace(spec, image_size=(1, 1))
    path = Path(spec.dataset) / "train" / "cat" / "001.png"
    digests = set[str]()
    for corner in (0, 255):
        image = Image.new("L", (64, 64), 1)
        image.putpixel((0, 0), corner)
        image.save(path)
        digests.add(load_development(spec).digest)
    assert len(digests) == 2


@pytest.mark.parametrize("change", ["label", "split", "validation"])
def test_another_label_or_another_split_gives_another_digest(spec: DataSpec, change: str) -> None:
    before, test_before = load_development(spec), load_test_set(spec)
    root = Path(spec.dataset)
    if change == "label":  # the rows stay in their order
        (root / "train" / "cat" / "003.png").rename(root / "train" / "dog" / "-.png")
    elif change == "split":
        (root / "train" / "cat" / "003.png").rename(root / "test" / "cat" / "003.png")
    else:
        for name in ("cat", "dog"):
            (root / "val" / name).mkdir(parents=True)
            for file in list((root / "train" / name).iterdir())[2:]:
                file.rename(root / "val" / name / file.name)
    after, test_after = load_development(spec), load_test_set(spec)
    assert before.digest != after.digest
    assert (test_before.digest != test_after.digest) == (change == "split")
    if change == "label":
        assert torch.equal(before.images_NCHW, after.images_NCHW)


def test_arrays_have_a_digest_of_their_values_whatever_their_layout() -> None:
    images_NCHW = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)
    transposed_NCHW = np.ascontiguousarray(images_NCHW.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert hash_array(images_NCHW) == hash_array(transposed_NCHW)
    assert hash_array(images_NCHW) != hash_array(images_NCHW.reshape(2, 3, 5, 4))
    changed_NCHW = images_NCHW.copy()
    changed_NCHW[1, 2, 3, 4] ^= 1
    assert hash_array(images_NCHW) != hash_array(changed_NCHW)


def test_the_digest_of_the_digits_is_the_same_in_every_version(spec: DataSpec) -> None:
    # A change here makes the images of every stored study of the digits other ones.
    digits = replace(spec, dataset="digits")
    assert load_development(digits).digest == "89fd222693647c51fb077397899fbeee"
    assert load_test_set(digits).digest == "5461b08731f46b835a4a3a1c09ac1f1a"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows refuses to replace an open file")
def test_a_file_that_is_replaced_while_it_is_read_has_the_digest_of_its_pixels(
    spec: DataSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = (save_image(tmp_path / f"{level}.png", "L", colour=level) for level in (1, 2))
    expected = read_hashed_pixels(path, channels=1, height=8, width=8)
    open_image = Image.open

    def replace_and_open(file: Any) -> Any:
        os.replace(other, path)
        return open_image(file)

    monkeypatch.setattr("PIL.Image.open", replace_and_open)
    pixels_CHW, digest = read_hashed_pixels(path, channels=1, height=8, width=8)
    assert (pixels_CHW.max(), digest) == (expected[0].max(), expected[1])


def test_pixels_and_their_stored_digest_changed_together_are_noticed(spec: DataSpec) -> None:
    folder = load_development(spec).folder
    other = load_development(replace(spec, image_size=(4, 4))).folder
    for name in ("images.npy", "labels.npy", "meta.json"):
        shutil.copyfile(other / name, folder / name)
    assert load_cached(folder).image_size == (4, 4)
    assert not is_intact(folder, report=None)
    again = load_development(spec)
    assert (again.image_size, len(again.repairs)) == ((8, 8), 1)


def test_the_digest_is_of_the_content_and_not_of_paths_or_times(spec: DataSpec, tmp_path: Path) -> None:
    shutil.copytree(spec.dataset, tmp_path / "copies" / "pets", copy_function=shutil.copyfile)
    first, second = load_development(spec), load_development(make_spec(tmp_path / "copies" / "pets", tmp_path))
    assert first.digest == second.digest
    assert first.folder == second.folder


def test_the_digest_knows_class_names_and_the_validation_part(spec: DataSpec, tmp_path: Path) -> None:
    first = load_development(spec)
    for part in ("train", "test"):
        os.rename(Path(spec.dataset) / part / "dog", Path(spec.dataset) / part / "emu")
    renamed = load_development(spec)
    assert torch.equal(first.images_NCHW, renamed.images_NCHW)
    assert first.digest != renamed.digest


def test_folders_with_equal_listings_in_two_places_are_not_confused(tmp_path: Path) -> None:
    digests = []
    for place, level in (("here", 1), ("there", 2)):
        root = tmp_path / place / "pets"
        for name in ("train/cat/a.bmp", "train/cat/b.bmp", "train/dog/a.bmp", "train/dog/b.bmp"):
            save_image(root / name, "L", colour=level)
            save_image(root / name.replace("train", "test"), "L", colour=level)
        for path in root.rglob("*.bmp"):
            os.utime(path, ns=(0, 0))
        digests.append(load_development(make_spec(root, tmp_path)).digest)
    assert digests[0] != digests[1]


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["cut", "removed"])
def test_a_damaged_cache_is_noticed_and_rebuilt(spec: DataSpec, name: str, damage: str) -> None:
    whole = load_development(spec)
    expected, folder = whole.images_NCHW.clone(), whole.folder
    del whole
    if damage == "cut":
        (folder / name).write_bytes((folder / name).read_bytes()[:-5])
    else:
        (folder / name).unlink()
    with pytest.raises(DataError, match=r"a cached data set must be whole; .* load the data set again"):
        load_cached(folder)
    again = load_development(spec)
    assert torch.equal(again.images_NCHW, expected)
    assert again.folder == folder
    assert len(again.repairs) == 1
    assert len(cache_folders(spec)) == 2


def flip_a_byte(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


# The first bytes of both files are headers of NumPy's, which say how long and of what type the rest is.
@pytest.mark.parametrize(("name", "position"), [("images.npy", -1), ("images.npy", 10), ("labels.npy", -8)])
def test_changed_pixels_or_labels_of_the_same_length_are_decoded_again_and_that_is_said(
    spec: DataSpec, name: str, position: int
) -> None:
    whole = load_development(spec)
    expected, folder = whole.images_NCHW.clone(), whole.folder
    assert whole.repairs == ()
    del whole
    flip_a_byte(folder / name, position)
    again = load_development(spec)
    assert torch.equal(again.images_NCHW, expected)
    assert again.labels_N.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert again.folder == folder
    (repair,) = again.repairs
    assert repair == (
        f"the cached development images of {spec.dataset} were damaged or missing, and have been decoded again"
    )
    assert load_development(spec).repairs == ()
    assert len(cache_folders(spec)) == 2


def test_changed_pixels_of_the_test_part_are_decoded_again_when_it_is_opened(spec: DataSpec) -> None:
    test = load_test_set(spec)
    expected, folder = test.images_NCHW.clone(), test.folder
    del test
    flip_a_byte(folder / "images.npy", -1)
    assert load_development(spec).repairs == ()  # the test images are not read for that
    again = load_test_set(spec)
    assert torch.equal(again.images_NCHW, expected)
    assert len(again.repairs) == 1
    assert "the cached test images of" in again.repairs[0]


def test_damaged_pixels_are_not_taken_for_those_of_a_copy_of_the_data_set(spec: DataSpec, tmp_path: Path) -> None:
    whole = load_development(spec)
    expected, folder = whole.images_NCHW.clone(), whole.folder
    del whole
    flip_a_byte(folder / "images.npy", -1)
    shutil.copytree(spec.dataset, tmp_path / "copies" / "pets")
    copy = load_development(make_spec(tmp_path / "copies" / "pets", tmp_path))
    assert copy.folder == folder
    assert torch.equal(copy.images_NCHW, expected)
    assert len(copy.repairs) == 1


def test_a_large_set_is_checked_without_a_place_for_it_in_memory(spec: DataSpec) -> None:
    folder = load_development(spec).folder
    shape = (5_000_000, 1, 8, 8)
    with (folder / "images.npy").open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
        stream.truncate(stream.tell() + 5_000_000 * 64)  # a hole: it takes no room on the disk
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    meta["sizes"]["images.npy"] = (folder / "images.npy").stat().st_size
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    process, done, taken = psutil.Process(), list[int](), list[int]()
    before = process.memory_info().rss

    def report(what: str, num_done: int, num_images: int) -> None:
        assert (what, num_images) == ("checking the decoded images", shape[0])
        done.append(num_done)
        taken.append(process.memory_info().rss - before)

    assert not is_intact(folder, report=report)  # it has another digest
    assert done == sorted(done)
    assert done[-1] == shape[0]
    assert max(taken) < 50 * 2**20


def test_files_that_are_only_listed_otherwise_do_not_bring_damaged_pixels_back(spec: DataSpec) -> None:
    whole = load_development(spec)
    expected, file = whole.images_NCHW.clone(), whole.folder / "images.npy"
    flip_a_byte(file, -1)
    os.utime(Path(spec.dataset) / "test" / "cat" / "000.png")
    again = load_development(spec)
    assert again.digest == whole.digest
    assert torch.equal(again.images_NCHW, expected)
    assert "the cached development images of" in again.repairs[0]


def test_damage_that_the_source_cannot_put_right_is_an_error_and_the_images_are_not_used(spec: DataSpec) -> None:
    folder = load_development(spec).folder
    flip_a_byte(folder / "images.npy", -1)
    file = Path(spec.dataset) / "train" / "cat" / "000.png"
    file.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"000\.png"):
        load_development(spec)


def test_all_that_is_published_is_on_the_disk_before(spec: DataSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[int] = set()
    sync, replace = os.fsync, os.replace

    def note_sync(descriptor: int) -> None:
        sync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    def check_replace(source: Path, target: Path) -> None:
        files = [source, *source.iterdir()] if source.is_dir() else [source]
        assert {file.stat().st_ino for file in files if hasattr(os, "O_DIRECTORY") or file.is_file()} <= synced
        published.append(target)
        replace(source, target)

    published: list[Path] = []
    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", check_replace)
    load_development(spec)
    assert len(published) == 3  # both parts, and the listing


def test_a_damaged_listing_is_mended(spec: DataSpec) -> None:
    load_development(spec)
    (listing,) = (spec.cache_dir / "listings").iterdir()
    listing.write_text("[nonsense")
    load_development(spec)
    assert "nonsense" not in listing.read_text()


def test_leftovers_of_a_killed_process_do_no_harm(spec: DataSpec) -> None:
    (spec.cache_dir / ".tmp-0123").mkdir(parents=True)
    (spec.cache_dir / ".tmp-0123" / "images.npy").write_bytes(b"half")
    assert len(load_development(spec).labels_N) == 8


def test_a_failed_decoding_leaves_nothing_behind(spec: DataSpec) -> None:
    (Path(spec.dataset) / "test" / "cat" / "000.png").write_text("broken")
    with pytest.raises(DataError, match=r"000\.png"):
        load_development(spec)
    assert not [name for name in cache_folders(spec) if name.startswith(".tmp")]


def test_a_cache_that_cannot_be_written_is_named(spec: DataSpec) -> None:
    spec.cache_dir.write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"the cache must be writable; .*cache is not"):
        load_development(spec)


def test_a_full_disk_is_noticed_before_anything_is_decoded(spec: DataSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(spec.cache_dir.parent)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"decoded images need .* MB free"):
        load_development(spec)


@pytest.mark.slow
def test_two_processes_at_once_share_one_sound_cache(spec: DataSpec) -> None:
    script = (
        "import pickle, sys\n"
        "from tuner.data.development_part import load_cached, load_development\n"
        "dataset = load_development(pickle.loads(bytes.fromhex(sys.argv[1])))\n"
        "print(load_cached(dataset.folder).images_NCHW.sum().item(), dataset.digest)"
    )
    command = [sys.executable, "-c", script, pickle.dumps(spec).hex()]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = {worker.communicate(timeout=60)[0] for worker in workers}
    assert all(worker.returncode == 0 for worker in workers)
    dataset = load_development(spec)
    assert answers == {f"{dataset.images_NCHW.sum().item()} {dataset.digest}\n"}
    assert len(cache_folders(spec)) == 2


def test_progress_is_reported_to_the_end(spec: DataSpec) -> None:
    seen: list[tuple[str, int, int]] = []
    load_development(spec, report=lambda what, done, total: seen.append((what, done, total)))
    assert ("looking at images", 8, 8) in seen
    assert ("decoding images", 8, 8) in seen
    assert ("decoding images", 4, 4) in seen


def test_rows_keep_their_order_over_many_groups_of_threads(tmp_path: Path) -> None:
    root = tmp_path / "many"
    for part, count in (("train", 600), ("test", 1)):
        for name in ("a", "b"):
            for number in range(count):
                level = number * 100
                save_image(
                    root / part / name / f"{number:04}.ppm", "RGB", (1, 1), (level // 256, level % 256, ord(name))
                )
    dataset = load_development(make_spec(root, tmp_path))
    red, green, _ = np.moveaxis(dataset.images_NCHW.numpy()[:, :, 0, 0].astype(int), 1, 0)
    assert (red * 256 + green).tolist() == [number * 100 for number in range(600)] * 2


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (1025, 5), (5, -1)])
def test_an_image_size_outside_the_limits_is_refused(spec: DataSpec, size: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=rf"must be between 1 and 1024; got {size[0]}x{size[1]}"):
        load_development(make_spec(spec.dataset, spec.cache_dir.parent, image_size=size))


def test_the_automatic_side_is_the_one_the_rule_names() -> None:
    assert images.__doc__ is not None
    assert str(images.MAX_AUTOMATIC_SIDE) in images.__doc__
