import pytest

from tests.strategies import make_space
from tuner.architecture.spec import InputSpec
from tuner.data.image_parts import ImageParts
from tuner.data.known_sets import KNOWN_NAMES, SETS_OF_CHARACTERS
from tuner.errors import SpaceError
from tuner.space.automatic_flip import decide_flip, with_flip
from tuner.space.sampling import candidate_from, distributions, first_params
from tuner.space.schema import SearchSpace

PETS = ("cat", "dog")


def space_with(flip: object, **tables: object) -> SearchSpace:
    return make_space(recipe={"flip": flip}, **tables)


@pytest.mark.parametrize(
    ("dataset", "class_names", "flip", "reason"),
    [
        ("cifar10", ("airplane", "cat"), "horizontal", "not digits or letters"),
        ("fashion-mnist", ("T-shirt/top", "Bag"), "horizontal", "not digits or letters"),
        ("digits", tuple("0123456789"), "none", "digits would be other characters"),
        ("kmnist", ("o", "ki", "su"), "none", "kmnist would be other characters"),
        ("emnist-byclass", ("0", "A", "a"), "none", "emnist-byclass"),
        ("pictures/plates", ("A", "b", "7", "ä"), "none", "a single letter or digit"),
        ("pictures/plates", ("A", "10"), "horizontal", "not digits or letters"),
        ("pictures/signs", ("+", "-"), "horizontal", "not digits or letters"),
        ("pictures/flowers", ("1", "10", "102"), "horizontal", "not digits or letters"),
        ("pathmnist.npz", ("0", "1", "2"), "none", "the labels are numbers without class names"),
        ("cifar100.NPZ", tuple(map(str, range(100))), "none", "the labels are numbers without class names"),
        ("train.csv", ("0", "1"), "none", "the labels are numbers without class names"),
        ("arrays:pets:0123", ("0", "1"), "none", "the labels are numbers without class names"),
        ("pets.npz", ("cat", "dog"), "horizontal", "not digits or letters"),
        ("letters.npz", ("A", "b"), "none", "a single letter or digit"),
        ("train.csv", ("cat", "1"), "horizontal", "not digits or letters"),
    ],
)
def test_digits_and_letters_are_not_flipped_and_other_images_are(
    dataset: str, class_names: tuple[str, ...], flip: str, reason: str
) -> None:
    space, note = decide_flip(space_with("auto"), dataset, class_names)
    assert space.recipe.flip.values == [flip]
    assert note.startswith(f"flip is {flip}, since ")
    assert reason in note
    assert "\n" not in note
    assert decide_flip(space, dataset, class_names) == (space, "")


@pytest.mark.parametrize("flip", ["none", "horizontal"])
@pytest.mark.parametrize("dataset", ["digits", "pets"])
def test_a_space_that_says_so_decides_itself(flip: str, dataset: str) -> None:
    space = space_with(flip)
    assert decide_flip(space, dataset, PETS) == (space, "")


def test_every_known_set_of_characters_is_known() -> None:
    assert set(KNOWN_NAMES) >= SETS_OF_CHARACTERS
    assert set(KNOWN_NAMES) - SETS_OF_CHARACTERS == {"fashion-mnist", "cifar10", "cifar100", "stl10"}


def test_what_is_decided_is_a_choice_among_others_and_is_not_repeated() -> None:
    space = space_with(["auto", "none"], first=[{"block": [{}, {}], "recipe": {"flip": "auto"}}])
    assert with_flip(space, "horizontal").recipe.flip.values == ["horizontal", "none"]
    assert first_params(with_flip(space, "horizontal")) == [{"flip": "horizontal"}]
    decided = with_flip(space, "none")
    assert decided.recipe.flip.values == ["none"]
    assert distributions(decided) == {}
    assert decided.first[0].recipe == {"flip": "none"}
    assert first_params(decided) == [{}]


def test_nothing_else_of_the_space_changes() -> None:
    space = make_space(max_parameters=1000, recipe={"flip": "auto", "mixup": [0.0, 0.2], "cutout": 0.25})
    assert with_flip(space, "none").model_dump(exclude={"recipe"}) == space.model_dump(exclude={"recipe"})
    assert with_flip(space, "none").recipe.model_dump(exclude={"flip"}) == space.recipe.model_dump(exclude={"flip"})


def test_a_network_cannot_be_sampled_before_the_flip_is_decided() -> None:
    with pytest.raises(SpaceError, match=r'made: recipe.flip: "auto" must be decided from the data set'):
        candidate_from({}, space_with("auto"), InputSpec(1, 8, 8, 10), epochs=1)


def test_classes_of_a_set_in_memory_that_are_only_numbers_are_no_names() -> None:
    for dataset in (ImageParts(([], [])), "arrays:arrays:0123"):  # as given, and as a study that resumes knows it
        space, note = decide_flip(space_with("auto"), dataset, ("0", "1", "10"))
        assert space.recipe.flip.values == ["none"]
        assert note == (
            "flip is none, since the labels are numbers without class names, so the images may be digits or letters; "
            "to decide it, set flip in the search space"
        )


def test_the_name_of_a_set_in_memory_does_not_decide() -> None:
    parts = ImageParts(([], []), name="mnist")  # a study that resumes knows it by another name
    assert decide_flip(space_with("auto"), parts, PETS)[0].recipe.flip.values == ["horizontal"]
