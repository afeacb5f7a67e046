"""The options of a run, and the rule that each must follow, for users of the library and of the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tuner.data.data_checks import PROBLEMS
from tuner.data.dataset import Columns, DataSpec
from tuner.data.image_parts import ImageParts, may_be_images, parts_from
from tuner.errors import OptionError
from tuner.names import shown_name
from tuner.search.record import StudyRecord
from tuner.search.stored_options import StudyOptions, load_options
from tuner.search.study_location import default_study_name
from tuner.space.automatic_space import AUTO

if TYPE_CHECKING:
    from torch.utils.data import Dataset

DATASET, DATA_DIR, SPACE, TRIALS, SEED = "digits", Path("data"), AUTO, 50, 0
"""Defaults of a new study for options that are not given; RunOptions and `tuner run --help` document them."""
SMALL_SET = 10_000
EPOCHS_SMALL, EPOCHS_SMALL_PRETRAINED, EPOCHS_LARGE = 20, 10, 5
"""Default number of epochs of a trial: for training parts of less than SMALL_SET images, the same with pretrained
weights, and for others."""


@dataclass(frozen=True)
class RunOptions:
    """Options of `tuner run`. `storage` is an Optuna URL.

    `dataset`, `data_dir`, `image_size`, `space`, `trials`, `epochs`, `seed`, the columns and `group` have the value
    that the study stores if they are `None`. A new study has the defaults: dataset `digits`, data_dir `data`, space
    `auto`, 50 trials, seed 0, the images' own size, and 20 epochs, or 5 if there are 10,000 training images or more.

    image_size: (height, width) in pixels. Pretrained networks take square images of this size, whatever the backbone.
    dataset: a known name, the path of a folder or file, `ImageParts`, a pair of arrays or tensors (images, labels), or
    a `torch.utils.data.Dataset` of (image, label).
    space: the name of a bundled space, the path of a TOML file, or `auto`: the space of the study; for a new study, the
    bundled space that suits the images.
    study: named after the data set and the space by default.
    allow: names of what would make the scores of the data set meaningless, and is accepted: `duplicates`, `constant`,
    `labels`. What a study has accepted once stays accepted.
    trials: the total, including those already run. A run with a time budget and no number of trials runs as many as
    the budget allows.
    device: `auto` is the device of the study; a new study takes the best device of the machine.
    engine: choices to force, as `CHOICE=VALUE,...`; `tuner doctor` lists them. `auto` forces none.
    workers: `None` chooses the number by measuring the machine.
    budget_seconds: time limit for the whole run; with a confirmation, the search gets half of it, and
    the final training is as long as the rest allows.
    image_column, label_column, split_column: columns of a table (.csv), if their names are not known ones.
    group_column, group: where the group of each image is found, such as its patient: a column of a table, or a regular
    expression on file names. Images of one group stay on one side of every split.
    weights: files of pretrained weights for a space of backbones, each as NAME=FILE.
    confirm: whether to retrain the best trials and score the winner on the test set: in time (what is left of the
    budget, or a third of the run's time without one), in full, or not at all.

    `run` and `run_events` raise OptionError for invalid values.
    """

    dataset: str | Path | ImageParts | tuple[Any, ...] | Dataset[Any] | None = None
    data_dir: Path | None = None
    image_size: tuple[int, int] | None = None
    download: bool = True
    space: str | None = None
    study: str | None = None
    studies: Path = Path("studies")
    storage: str | None = field(default=None, repr=False)
    trials: int | None = None
    epochs: int | None = None
    seed: int | None = None
    device: str = "auto"
    engine: str = "auto"
    workers: int | None = None
    budget_seconds: float = float("inf")
    confirm: Literal["in time", "in full", "no"] = "in time"
    allow: tuple[str, ...] = ()
    image_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    group: str | None = None
    weights: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Keep a path as text, and a pair of arrays or a data set as ImageParts, so that its images are read once."""
        if isinstance(self.dataset, Path):
            object.__setattr__(self, "dataset", str(self.dataset))
        elif may_be_images(self.dataset):
            object.__setattr__(self, "dataset", parts_from(self.dataset))

    @property
    def given_dataset(self) -> str | ImageParts | None:
        """The data set as `__post_init__` keeps it."""
        assert isinstance(self.dataset, str | ImageParts | None)
        return self.dataset

    @property
    def given_space(self) -> str | None:
        """The space; None if it is that of the study, or chosen for a new one."""
        return None if self.space == AUTO else self.space

    @property
    def study_name(self) -> str:
        """The name of the study to start or resume."""
        return self.study or default_study_name(str(self.dataset or DATASET), self.space or SPACE)

    @property
    def cache_dir(self) -> Path:
        """The folder of decoded images."""
        return self.studies / ".cache"

    @property
    def data_spec(self) -> DataSpec:
        """Where the images of a new study come from."""
        return DataSpec(
            self.given_dataset or DATASET,
            self.data_dir or DATA_DIR,
            self.cache_dir,
            image_size=self.image_size,
            download=self.download,
            columns=self.columns,
            group=self.group,
        )

    @property
    def columns(self) -> Columns:
        """The columns of a table that are given."""
        return Columns(self.image_column, self.label_column, self.split_column, self.group_column)


def weights_from(given: tuple[str, ...]) -> dict[str, Path]:
    """Return the files of `weights` by the names of their backbones. Raises OptionError if a name is repeated."""
    files: dict[str, Path] = {}
    for one in given:
        name, _, file = one.partition("=")
        if name in files:
            raise OptionError(f"weights must have one file for each backbone; {name} is given twice: remove one")
        files[name] = Path(file).expanduser()
    return files


def wanted_trials(options: StudyOptions, budget_seconds: float) -> int | None:
    """Total number of trials that a run wants; None for as many as its budget allows.

    Without a number that is given or stored, a run with a budget has no other limit, and one without has the default.
    """
    if options.trials is None and budget_seconds == float("inf"):
        return TRIALS
    return options.trials


def complete_options(options: RunOptions, stored: StudyOptions | None) -> StudyOptions:
    """Return the options as given; missing ones are the study's, or the defaults if `stored` is None."""
    base = StudyOptions(options.data_spec, SPACE, None, None, SEED) if stored is None else stored
    spec = replace(
        base.data_spec,
        dataset=options.given_dataset or base.data_spec.dataset,
        data_dir=options.data_dir or base.data_spec.data_dir,
        image_size=options.image_size or base.data_spec.image_size,
        download=options.download,
        columns=replace(base.data_spec.columns, **options.columns.given_by_role()),
        group=options.group or base.data_spec.group,
    )
    return StudyOptions(
        spec,
        space=options.given_space or base.space,
        trials=options.trials or base.trials,
        epochs=options.epochs or base.epochs,
        seed=base.seed if options.seed is None else options.seed,
        allow=tuple(name for name in PROBLEMS if name in (*base.allow, *options.allow)),
    )


def options_of_study(options: RunOptions, earlier: StudyRecord | None) -> tuple[StudyOptions, tuple[str, ...]]:
    """Return the options of a run, and notes on those that come from the study. earlier: the study, if it exists.

    Raises StudyError if the study cannot be read.
    """
    if earlier is None:
        return complete_options(options, None), ()
    stored = load_options(earlier, complete_options(options, None), cache_dir=options.cache_dir)
    return complete_options(options, stored), _notes_on_stored(options, stored)


def _notes_on_stored(options: RunOptions, stored: StudyOptions) -> tuple[str, ...]:
    size = stored.data_spec.image_size
    values = {
        "dataset": shown_name(str(stored.data_spec.dataset)),
        "image_size": None if size is None else "{}x{}".format(*size),
        **stored.data_spec.columns.given(),
        "group": stored.data_spec.group,
        "space": stored.space if stored.is_space_bundled else None,
        "trials": stored.trials,
        "epochs": stored.epochs,
        "seed": stored.seed,
    }
    given = vars(options) | {"space": options.given_space}
    taken = [
        f"--{name.replace('_', '-')} {value}"
        for name, value in values.items()
        if value is not None and given[name] is None
    ]
    taken += [f"--allow {name}" for name in stored.allow if name not in options.allow]
    return (f"options taken from the study: {' '.join(taken)}",) if taken else ()


Rule = tuple[str, Callable[[Any], bool]]
"""Text of a rule, and a function that says whether a value keeps to it."""


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(low: int, high: int) -> Rule:
    return f"a whole number from {low:,} to {high:,}", lambda value: _is_whole(value) and low <= value <= high


def _or_none(rule: Rule) -> Rule:
    words, keeps = rule
    return words, lambda value: value is None or keeps(value)


TEXT: Rule = ("a text that is not empty", lambda value: isinstance(value, str) and value != "")
DATA: Rule = (
    "a name, a path, tuner.ImageParts, a pair of arrays (images, labels) or a torch Dataset",
    lambda value: (isinstance(value, ImageParts) and isinstance(value.name, str)) or TEXT[1](value),
)
FOLDER: Rule = ("a pathlib.Path", lambda value: isinstance(value, Path))
SECONDS: Rule = ("a number above 0", lambda value: isinstance(value, int | float) and value > 0)
SIZE: Rule = (
    "(height, width) in whole pixels",
    lambda value: isinstance(value, tuple) and len(value) == 2 and all(map(_is_whole, value)),
)
WEIGHTS: Rule = (
    "a tuple of texts like NAME=FILE, with the name of a backbone",
    lambda value: isinstance(value, tuple) and all(isinstance(one, str) and all(one.partition("=")) for one in value),
)
CONFIRM = ("in time", "in full", "no")
RULES: dict[str, Rule] = {
    "dataset": _or_none(DATA),
    "data_dir": _or_none(FOLDER),
    "image_size": _or_none(SIZE),
    "image_column": _or_none(TEXT),
    "label_column": _or_none(TEXT),
    "split_column": _or_none(TEXT),
    "group_column": _or_none(TEXT),
    "group": _or_none(TEXT),
    "space": _or_none(TEXT),
    "study": _or_none(TEXT),
    "studies": FOLDER,
    "storage": _or_none(TEXT),
    "weights": WEIGHTS,
    "trials": _or_none(_whole(1, 10**9)),
    "epochs": _or_none(_whole(1, 100_000)),
    "seed": _or_none(_whole(0, 2**63 - 1)),
    "device": TEXT,
    "engine": TEXT,
    "workers": _or_none(_whole(1, 1024)),
    "budget_seconds": SECONDS,
    "allow": (
        f"a tuple of names among {', '.join(map(repr, PROBLEMS))}",
        lambda value: isinstance(value, tuple) and all(name in PROBLEMS for name in value),
    ),
    "confirm": (f"one of {', '.join(map(repr, CONFIRM))}", lambda value: value in CONFIRM),
}


def check_options(options: RunOptions) -> None:
    """Raise OptionError for a value that an option cannot have."""
    for name, (words, keeps) in RULES.items():
        value = getattr(options, name)
        if not keeps(value):
            raise OptionError(f"{name} must be {words}, got {value!r}")


def default_epochs(num_train: int, *, is_pretrained: bool) -> int:
    """Default number of epochs of a trial, by the number of training images, and whether its weights are pretrained."""
    if num_train >= SMALL_SET:
        return EPOCHS_LARGE
    return EPOCHS_SMALL_PRETRAINED if is_pretrained else EPOCHS_SMALL
