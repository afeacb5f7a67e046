from pathlib import Path

import pytest
import torch
from PIL import Image

from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.blocks import PlainBlock
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.data.dataset import DataSpec, ImageDataset
from tuner.data.development_part import load_development
from tuner.data.resident import pixel_scaling
from tuner.errors import DataError
from tuner.search.backbone_data import VIEW_SEED
from tuner.search.study_runners import input_spec_of
from tuner.training.augmentation import draw_augmentation
from tuner.training.candidate import Candidate, Recipe
from tuner.training.engine import Engine
from tuner.ui.contact_sheet import GAP, NUM_EPOCHS, NUM_IMAGES, TILE, contact_sheet, draw_sheet, save_sheet


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    folder = tmp_path_factory.mktemp("digits")
    return load_development(DataSpec("digits", folder / "data", folder / "cache"))


def candidate(dataset: ImageDataset, **recipe: object) -> Candidate:
    architecture = Architecture(input_spec_of(dataset), (PlainBlock(4),), Head())
    return Candidate(architecture, Recipe(**recipe))  # type: ignore[arg-type]


def test_a_sheet_shows_images_of_different_classes_and_their_versions(digits: ImageDataset) -> None:
    sheet = contact_sheet(digits, candidate(digits, flip="horizontal", translate=0.25), seed=3)
    assert sheet.words == "horizontal flips, shifts of up to 25 %"
    assert sheet.names == ("0", "1", "2", "3", "4", "5")
    assert sheet.versions_NECHW.shape == (NUM_IMAGES, NUM_EPOCHS, 1, 8, 8)
    assert not any(any(captions) for captions in sheet.captions)
    epochs = sheet.versions_NECHW.unbind(1)
    assert not any(torch.equal(one, other) for number, one in enumerate(epochs) for other in epochs[:number])
    again = contact_sheet(digits, candidate(digits, flip="horizontal", translate=0.25), seed=3)
    assert torch.equal(sheet.versions_NECHW, again.versions_NECHW)


def test_without_augmentation_every_version_is_the_original(digits: ImageDataset) -> None:
    sheet = contact_sheet(digits, candidate(digits), seed=0)
    assert sheet.words == "no augmentation"
    assert torch.equal(sheet.versions_NECHW, sheet.images_NCHW.unsqueeze(1).expand(-1, NUM_EPOCHS, -1, -1, -1))


def test_captions_say_how_much_of_each_class_a_mixed_image_has(digits: ImageDataset) -> None:
    sheet = contact_sheet(digits, candidate(digits, mixup=1.0), seed=0)
    for row, captions in enumerate(sheet.captions):
        for caption in captions:
            shares = {name: float(share[:-1]) for name, share in (line.split(": ") for line in caption.splitlines())}
            assert set(shares) <= {str(row), str((row + 1) % NUM_IMAGES)}
            assert sum(shares.values()) == pytest.approx(100, abs=1)


def test_a_sheet_is_drawn_with_enlarged_pixels_and_saved_as_png(digits: ImageDataset, tmp_path: Path) -> None:
    sheet = contact_sheet(digits, candidate(digits, cutout=0.5), seed=0)
    page = draw_sheet(sheet)
    save_sheet(page, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as saved:
        assert saved.format == "PNG"
        assert saved.size == page.size
        assert saved.size[0] == GAP + (1 + NUM_EPOCHS) * (TILE + GAP)
        top = next(y for y in range(saved.size[1]) if saved.getpixel((GAP, y)) == (0, 0, 0))
        for column, pixels_CHW in enumerate([sheet.images_NCHW[0], *sheet.versions_NECHW[0]]):
            for y, x in ((0, 0), (3, 5), (7, 7)):
                place = GAP + column * (TILE + GAP) + x * TILE // 8 + 3, top + y * TILE // 8 + 3
                assert saved.getpixel(place) == (int(pixels_CHW[0, y, x]),) * 3
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_a_sheet_that_cannot_be_written_is_refused_in_one_line(digits: ImageDataset, tmp_path: Path) -> None:
    page = draw_sheet(contact_sheet(digits, candidate(digits), seed=0))
    for output, reason in ((tmp_path, "is a folder"), (tmp_path / "absent" / "sheet.png", "cannot be written")):
        with pytest.raises(DataError, match=reason) as caught:
            save_sheet(page, output)
        assert "\n" not in str(caught.value)


def test_the_views_of_a_backbone_are_those_that_its_features_are_computed_from(tmp_path: Path) -> None:
    network = BackboneNetwork(InputSpec(3, 16, 16, 10), "timm/tf_efficientnet_lite0", "0" * 16, 0, 3)
    spec = DataSpec("digits", tmp_path / "data", tmp_path / "cache", image_size=(16, 16), channels=3)
    images = load_development(spec)
    recipe = Recipe(flip="horizontal", translate=0.25, cutout=0.5)
    sheets = [contact_sheet(images, Candidate(network, recipe), seed=seed) for seed in (3, 4)]
    assert [sheet.column for sheet in sheets] == ["view", "view"]
    scaling = pixel_scaling((0.5,) * 3, (0.5,) * 3, dtype=torch.float32, device=torch.device("cpu"))
    for view in range(3):
        drawn = draw_augmentation(
            Candidate(network, recipe), engine=Engine(), seed=VIEW_SEED, epoch=view + 1, num_images=len(images.labels_N)
        )
        assert drawn is not None
        all_NCHW, _ = drawn.apply(images.images_NCHW, images.labels_N, scaling=scaling, start=0)
        for sheet in sheets:
            for image_CHW, version_CHW in zip(sheet.images_NCHW, sheet.versions_NECHW[:, view], strict=True):
                same_N = (images.images_NCHW == image_CHW).flatten(1).all(1).nonzero().flatten().tolist()
                expected = [(all_NCHW[row] * 0.5 + 0.5).mul(255).round().to(torch.uint8) for row in same_N]
                assert any(torch.equal(version_CHW, one) for one in expected)
    assert (sheets[0].versions_NECHW == 128).any()  # what cutout erases is the mean of the weights


def test_a_backbone_without_frozen_stages_is_augmented_in_each_epoch_with_the_mean_of_its_weights(
    tmp_path: Path,
) -> None:
    network = BackboneNetwork(InputSpec(3, 16, 16, 10), "timm/tf_efficientnet_lite0", "0" * 16, 99)
    spec = DataSpec("digits", tmp_path / "data", tmp_path / "cache", image_size=(16, 16), channels=3)
    sheet = contact_sheet(load_development(spec), Candidate(network, Recipe(cutout=0.5)), seed=3)
    assert (sheet.column, sheet.versions_NECHW.shape[1]) == ("epoch", NUM_EPOCHS)
    assert (sheet.versions_NECHW == 128).any()
