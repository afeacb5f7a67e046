"""Make the stored study that later versions must read: `python tests/assets/make_study.py`, from the root, on Linux.

It writes tests/assets/study-N, where N is the format of the settings: `studies` has the database, the checkpoints and
confirmed.pt of a confirmed search on digits, `exports` has the winner in every format. A study that exists is never
replaced, because it shows what the version of that time has stored: a new one is made when a format is raised.

The engine is forced to plain fp32 on one thread, so that every CPU computes the same but for rounding. Digits need no
folder, so the only stored path is that of the folder for data sets, which is given as /data.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path

from tuner import RunOptions, export, load_study, open_storage, run
from tuner.search.settings import SETTINGS_FORMAT
from tuner.search.study_location import DATABASE
from tuner.training.engine import Engine
from tuner.training.engine_choices import CHOICES, written

FOLDER = Path(__file__).parent / f"study-{SETTINGS_FORMAT}"
NAME = "stored"
SPACE = """
[network]
num_blocks = [1, 2]
[block]
out_channels = [4, 8]
pooling = "max"
dropout = [0.0, 0.1]
[recipe]
optimizer = ["adam", "adamw"]
learning_rate = { low = 1e-3, high = 1e-2, log = true }
batch_size = 32
[[first]]
block = [{ out_channels = 4 }]
recipe = { optimizer = "adam", learning_rate = 1e-3 }
"""


def make_study(folder: Path) -> None:
    """Search, confirm and export in `folder`."""
    studies, space = folder / "studies", folder / "tiny.toml"
    space.write_text(SPACE, encoding="utf-8")
    options = RunOptions(
        dataset="digits",
        data_dir=Path("/data"),
        space=str(space),
        study=NAME,
        studies=studies,
        trials=4,
        epochs=2,
        seed=0,
        device="cpu",
        engine=written({choice.name: choice.plain for choice in CHOICES["cpu"]}),
        workers=1,
        confirm="in full",
    )
    run(options)
    storage = open_storage(f"sqlite:///{studies / DATABASE}")
    record = load_study(storage, NAME)
    assert record.engine == Engine(), f"not the plain engine on one thread: {record.engine}"
    export(record, studies=studies, output=folder / "exports", format="all")
    storage.engine.dispose()
    with sqlite3.connect(studies / DATABASE) as database:
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("VACUUM")
    database.close()
    for rest in (".cache", ".artifacts"):
        shutil.rmtree(studies / rest)


def main() -> None:
    """Make the study in a temporary folder with a cache of its own, and move it into place."""
    if FOLDER.exists():
        sys.exit(f"{FOLDER} exists and will not be replaced")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core, so one thread
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["TUNER_CACHE_DIR"] = str(Path(temporary) / "measurements")
        make_study(Path(temporary))
        for name in ("studies", "exports"):
            shutil.copytree(Path(temporary) / name, FOLDER / name, ignore=shutil.ignore_patterns("*.lock"))


if __name__ == "__main__":
    main()
