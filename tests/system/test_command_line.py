"""The commands as a user types them, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from PIL import Image

import tuner
from tests.system.conftest import ROOT, Tuner, run_tuner
from tuner.data.development_part import load_development
from tuner.data.sealed import load_test_set
from tuner.data.splits import split_development
from tuner.search.settings import StudySettings
from tuner.search.storage import open_storage
from tuner.search.study_lookup import open_study
from tuner.training.engine import Engine


def development(workplace: Path) -> tuner.ImageDataset:
    spec = tuner.DataSpec("digits", workplace / "data", workplace / "studies" / ".cache")
    return load_development(spec)


def sealed(workplace: Path) -> tuner.ImageDataset:
    spec = tuner.DataSpec("digits", workplace / "data", workplace / "studies" / ".cache")
    return load_test_set(spec)


def test_a_run_ends_with_the_winner_its_score_its_file_and_the_next_commands(workplace: Path) -> None:
    log = (workplace / "run.log").read_text(encoding="utf-8")
    shown = json.loads(run_tuner("show", "--json", cwd=workplace).stdout)
    confirmed = shown["confirmed"]
    assert f"winner   trial {confirmed['number']} of 8" in log
    assert f"{confirmed['test_accuracy']:.2%} on 360 sealed images" in log
    assert str(Path("studies/digits-auto/confirmed.pt")) in log
    assert "tuner export digits-auto -o best.pt" in log
    assert "360 of its 1,797 images" in log


def test_show_gives_counts_by_state_and_the_best_trial_as_optuna_has_it(workplace: Path) -> None:
    shown = json.loads(run_tuner("show", "digits-auto", "--json", cwd=workplace).stdout)
    study = optuna.load_study(study_name="digits-auto", storage=f"sqlite:///{workplace}/studies/tuner.db")
    states = [trial.state.name.lower() for trial in study.trials]
    assert shown["trials"]["complete"] == states.count("complete")
    assert shown["trials"]["counted"] == 8
    assert shown["best"]["number"] == study.best_trial.number
    assert shown["best"]["validation_accuracy"] == study.best_value
    assert shown["best"]["params"] == study.best_params
    assert Path(workplace / shown["best"]["checkpoint"]).is_file()


@pytest.mark.slow
def test_the_latest_study_is_taken_and_named_when_none_is_given(workplace: Path) -> None:
    shown = run_tuner("show", cwd=workplace)
    assert shown.returncode == 0
    assert "study digits-auto (the latest)" in shown.stderr
    assert "digits-auto" in run_tuner("list", cwd=workplace).stdout


def test_the_same_command_again_says_that_the_study_is_complete(workplace: Path) -> None:
    again = run_tuner("run", "--trials", "8", "--epochs", "8", "--workers", "1", cwd=workplace)
    assert again.returncode == 0
    assert "study digits-auto is complete: it has 8 trials" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "what_differs"),
    [
        (["--seed", "7"], "seed was 0, not 7"),
        (["--space", "article", "--study", "digits-auto"], 'space was "cnn", not "article"'),
        (["--image-size", "9"], "--image-size was unset, not 9x9"),
        (["--epochs", "9"], "epochs was 8, not 9"),
    ],
)
def test_a_study_resumed_with_other_settings_is_refused_with_what_differs(
    workplace: Path, tuner_here: Tuner, arguments: list[str], what_differs: str
) -> None:
    refused = tuner_here("run", "--trials", "9", "--epochs", "8", *arguments, cwd=workplace)
    assert refused.returncode == 2
    assert what_differs in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_the_readmes_dozen_lines_of_plain_torch_score_the_export_the_same_on_the_same_images(
    workplace: Path, tmp_path: Path
) -> None:
    exported = run_tuner("export", "-o", tmp_path / "best.pt", cwd=workplace)
    assert exported.returncode == 0, exported.stderr
    dataset = sealed(workplace)
    torch.save(dataset.images_NCHW.clone(), tmp_path / "images.pt")
    script = re.search(
        r"```python\n(import torch\n.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert script is not None
    code = "import sys\n" + script.group(1) + "\nassert not any(name.startswith('tuner') for name in sys.modules)\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    named = eval(done.stdout)
    truth = [dataset.class_names[label] for label in dataset.labels_N.tolist()]
    accuracy = sum(one == other for one, other in zip(named, truth, strict=True)) / len(truth)
    confirmed = json.loads(run_tuner("show", "--json", cwd=workplace).stdout)["confirmed"]
    assert accuracy == confirmed["delivered_test_accuracy"]


@pytest.mark.slow
def test_predict_names_classes_with_probabilities_and_names_a_file_it_cannot_read(
    workplace: Path, tuner_here: Tuner, tmp_path: Path
) -> None:
    (tmp_path / "best.pt").write_text("an older one")
    exported = run_tuner("export", "-o", tmp_path / "best.pt", cwd=workplace)
    assert exported.stdout.splitlines()[0].endswith("it replaces an existing file")
    dataset = development(workplace)
    rows_N = split_development(dataset, seed=0).train_indices_N[:20]
    paths = []
    for row in rows_N.tolist():
        paths.append(tmp_path / f"{row}.png")
        Image.fromarray(np.asarray(dataset.images_NCHW[row, 0])).save(paths[-1])
    predicted = run_tuner("predict", tmp_path / "best.pt", *paths, cwd=tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    lines = predicted.stdout.splitlines()
    first = [re.search(r": (\S+) ([\d.]+)%, ", line) for line in lines]
    truth = [dataset.class_names[label] for label in dataset.labels_N[rows_N].tolist()]
    right = sum(match is not None and match.group(1) == name for match, name in zip(first, truth, strict=True))
    assert right >= 18
    for name in ("broken.png", "worse.png"):
        (tmp_path / name).write_bytes(b"\x89PNG not an image")
    refused = tuner_here("predict", tmp_path / "best.pt", tmp_path / "broken.png", cwd=tmp_path)
    assert refused.returncode == 2
    assert "broken.png" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    of_folder = tuner_here("predict", tmp_path / "best.pt", tmp_path, cwd=tmp_path)
    assert of_folder.returncode == 2
    assert sorted(of_folder.stdout.splitlines()) == sorted(lines)  # the others are named all the same
    *unreadable, last = of_folder.stderr.splitlines()
    assert ["broken.png" in unreadable[0], "worse.png" in unreadable[1]] == [True, True]
    assert last == "tuner: error: 2 of 22 images cannot be read"


@pytest.mark.slow
def test_load_model_gives_a_module_in_eval_mode(workplace: Path, tmp_path: Path) -> None:
    run_tuner("export", "-o", tmp_path / "best.pt", cwd=workplace)
    model = tuner.load_model(tmp_path / "best.pt")
    assert not model.training
    assert model(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


def test_inspect_article_prints_the_arithmetic_that_the_article_got_wrong(tmp_path: Path) -> None:
    printed = run_tuner("inspect", "article", cwd=tmp_path)
    assert printed.returncode == 0
    for text in ("28-3+1=26", "(26-2)//2+1=13", "13-3+1=11", "(11-2)//2+1=5", "32*5*5=800", "12,810"):
        assert text in printed.stdout


@pytest.mark.slow
def test_inspect_shows_samples_by_seed_and_stored_trials(
    workplace: Path, tuner_here: Tuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")  # readline, which pytest imports, sets it for other processes alone
    one = run_tuner("inspect", "cnn", "--seed", "1", cwd=workplace).stdout
    same, other = (tuner_here("inspect", "cnn", "--seed", seed, cwd=workplace).stdout for seed in "12")
    assert one == same != other
    stored = tuner_here("inspect", "digits-auto", "--trial", "0", cwd=workplace)
    assert stored.returncode == 0
    assert "1x8x8" in stored.stdout
    for option in (["--seed", "1"], ["--input", "1x8x8"], ["--classes", "3"]):
        refused = tuner_here("inspect", "digits-auto", "--trial", "0", *option, cwd=workplace)
        assert refused.returncode == 2
        assert "--trial shows a stored network" in refused.stderr


@pytest.mark.slow
def test_brackets_in_names_are_shown_as_they_are(tmp_path: Path) -> None:
    options = ("--trials", "1", "--epochs", "1", "--workers", "1", "--no-confirm", "--study", "one")
    done = run_tuner("run", *options, "--studies", "my [old] runs [/b]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.startswith("\n")
    assert f"file     {Path('my [old] runs [/b]', 'one', 'trial-00000.pt')}" in done.stdout
    listed = run_tuner("list", "--studies", "my [old] runs [/b]", cwd=tmp_path)
    assert "my[old]runs[/b]" in "".join(listed.stdout.split()).replace("\\", "/")  # folded in a narrow terminal


def test_spaces_explains_every_bundled_space(tmp_path: Path) -> None:
    printed = run_tuner("spaces", cwd=tmp_path).stdout
    assert "article" in printed
    assert "0.003 to 0.05, log" in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--trials", "0"], "--trials"),
        (["run", "--no-such-option"], "--no-such-option"),
        (["run", "--dataset", "mnits"], "mnist"),
        (["run", "--space", "nowhere.toml"], "nowhere.toml"),
        (["run", "--space", "resnets"], "article, cnn"),
        (["run", "--device", "tpu"], "--device"),
        (["run", "--device", "cuda:99"], "cuda:99"),
        (["run", "--budget", "soon"], "--budget"),
        (["run", "--budget", "0s"], "--budget"),
        (["run", "--workers", "0"], "--workers"),
        (["run", "--image-size", "big"], "--image-size"),
        (["run", "--image-size", "0"], "image"),
        (["run", "--study", "../up"], "--study"),
        (["run", "--weights", "shuf.pth"], "--weights must be NAME=FILE with the name of a backbone, got 'shuf.pth'"),
        (["run", "--allow", "foo"], "--allow must be one of duplicates, constant, labels, got 'foo'"),
        (
            ["check", "--dataset", "digits", "--allow", "foo"],
            "--allow must be one of duplicates, constant, labels, got",
        ),
        (["run", "--dataset", "a" * 5000 + ".csv"], "is too long"),
        (["run", "--storage", "nonsense://x"], "--storage"),
        (["show"], "no studies"),
        (["export"], "no studies"),
        (["inspect", "nothing"], "nothing"),
        (["inspect", "cnn", "--input", "28"], "--input"),
        (["inspect", "cnn", "--augmented"], "--augmented needs images: give --dataset"),
        (["inspect", "cnn", "--dataset", "digits"], "--dataset and -o are for a contact sheet"),
        (["inspect", "cnn", "-o", "sheet.png"], "--dataset and -o are for a contact sheet"),
        (["inspect", "cnn", "--augmented", "--dataset", "digits", "--classes", "3"], "--input and --classes are those"),
        (["inspect", "cnn", "--augmented", "--dataset", "absent"], "absent"),
        (["inspect", "cnn", "--image-size", "8", "--group", "x"], "--image-size, --group must go with --augmented"),
        (["inspect", "s", "--trial", "0", "--label-column", "kind"], "images of its study: omit --label-column"),
        (
            ["inspect", "cnn", "--augmented", "--dataset", "digits", "--split-column", "x"],
            "--split-column must go with",
        ),
        (["predict", "absent.pt", "image.png"], "absent.pt"),
        (["frobnicate"], "frobnicate"),
        (["run", "--dataset", ""], "--dataset: an empty value"),
        (["run", "--space="], "--space: an empty value"),
        (["run", "--study", ""], "--study: an empty value"),
        (["list", "--storage", ""], "--storage: an empty value"),
        (["show", ""], "show: an empty value"),
        (["run", "--seed", "9" * 30], "seed must be a whole number from 0"),
        (["run", "--trials", "9" * 30], "trials must be a whole number from 1"),
        (["run", "--storage", "sqlite://"], "a study in memory"),
        (["run", "--storage", "sqlite:///{}.db"], "braces"),
        (["list", "--storage", "sqlite:///absent.db"], "absent.db"),
    ],
)
def test_a_wrong_input_gets_one_line_and_exit_code_2(
    tuner_here: Tuner, tmp_path: Path, arguments: list[str], said: str
) -> None:
    refused = tuner_here(*arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
    assert not refused.stdout
    assert not list(tmp_path.glob("*.db"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what_happens", "said"),
    [
        ("torch.empty(2**60)", "there is not enough memory for this; give smaller images, or fewer --workers"),
        ("open('absent')", "[Errno 2] No such file or directory: 'absent'"),
    ],
)
def test_what_the_machine_refuses_a_command_is_one_line(tmp_path: Path, what_happens: str, said: str) -> None:
    code = "import sys, torch, tuner.cli\nsys.argv = ['tuner', 'list']\n"
    code += f"tuner.cli.app = lambda **options: {what_happens}\ntuner.cli.main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"tuner: error: {said}\n")


def test_without_a_command_the_help_is_printed(tmp_path: Path) -> None:
    alone, asked = run_tuner(cwd=tmp_path), run_tuner("--help", cwd=tmp_path)
    assert (alone.returncode, alone.stderr) == (0, "")
    assert alone.stdout == asked.stdout
    assert "inspect" in alone.stdout


@pytest.mark.slow
def test_a_command_that_fails_for_the_latest_study_has_one_line_on_standard_error(workplace: Path) -> None:
    refused = run_tuner("export", "-o", workplace, cwd=workplace)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"tuner: error: -o {workplace}: the folder holds other things")
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.slow
def test_output_that_nobody_reads_ends_the_command_quietly(workplace: Path) -> None:
    command = [sys.executable, "-m", "tuner", "show"]
    with subprocess.Popen(command, cwd=workplace, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 1


@pytest.mark.slow
def test_a_name_that_the_terminal_cannot_show_is_spelled_out(workplace: Path, tmp_path: Path) -> None:
    run_tuner("export", "-o", tmp_path / "best.pt", cwd=workplace)
    Image.new("L", (8, 8)).save(tmp_path / "犬.png")
    command = [sys.executable, "-m", "tuner", "predict", "best.pt", "犬.png"]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}  # as a terminal of Windows
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("\\u72ac.png: ")


@pytest.mark.slow
def test_a_finished_study_is_shown_and_exported_from_a_folder_that_cannot_be_written(
    workplace: Path, tmp_path: Path
) -> None:
    leave_out = shutil.ignore_patterns("tuner.db-*")  # what SQLite keeps while somebody, such as a test, has it open
    shutil.copytree(workplace / "studies", tmp_path / "studies", ignore=leave_out)
    before = {path: path.read_bytes() for path in (tmp_path / "studies").rglob("*") if path.is_file()}
    folders = [tmp_path / "studies", tmp_path / "studies" / "digits-auto"]
    for path in [*before, *folders]:
        path.chmod(0o444 if path.is_file() else 0o555)
    try:
        listed, shown = run_tuner("list", cwd=tmp_path), run_tuner("show", "digits-auto", cwd=tmp_path)
        exported = run_tuner("export", "digits-auto", "-o", "best.pt", cwd=tmp_path)
    finally:
        for path in folders:
            path.chmod(0o755)
    assert [done.stderr for done in (listed, shown, exported)] == [""] * 3
    assert "digits-auto" in listed.stdout
    assert "complete" in shown.stdout
    assert tuner.load_model(tmp_path / "best.pt")
    assert {path: path.read_bytes() for path in (tmp_path / "studies").rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_one_study_that_cannot_be_read_does_not_hide_the_others(workplace: Path, tmp_path: Path) -> None:
    shutil.copytree(workplace / "studies", tmp_path / "studies")
    database = f"sqlite:///{(tmp_path / 'studies' / 'tuner.db').as_posix()}"
    settings = StudySettings("digits", "d", space_name="cnn", space={}, seed=0, epochs=1)
    broken = open_study(open_storage(database), "broken", settings, engine=Engine("cpu"))
    optuna.load_study(study_name="broken", storage=database).enqueue_trial({}, user_attrs={"candidate": {"odd": 1}})
    listed = run_tuner("list", cwd=tmp_path)
    assert listed.returncode == 2
    assert listed.stderr.startswith(f"tuner: error: study {broken.name!r}: trial 0 cannot be read")
    assert len(listed.stderr.strip().splitlines()) == 1
    assert "digits-auto" in listed.stdout
    refused = run_tuner("show", cwd=tmp_path)
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1


def test_help_does_not_import_torch(tmp_path: Path) -> None:
    code = "import sys\nsys.argv = ['tuner', '--help']\nfrom tuner.__main__ import main\n"
    code += "try:\n    main()\nexcept SystemExit:\n    pass\n"
    code += "assert not {'torch', 'optuna', 'numpy', 'pydantic'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["run", "--dataset", "mnist", "--data-dir", "."], ["doctor"]])
def test_a_mismatch_of_torch_and_torchvision_is_said_in_one_line_with_the_mend(
    tmp_path: Path, arguments: list[str]
) -> None:
    broken = tmp_path / "torchvision"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    code = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nsys.argv = {['tuner', *arguments]!r}\n"
    code += "from tuner.__main__ import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_wheel_installed_elsewhere_brings_its_spaces(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    build = [*pip, "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-w", str(wheels)]
    subprocess.run(build, check=True, capture_output=True, cwd=tmp_path)
    (wheel,) = wheels.glob("*.whl")
    assert wheel.name.startswith(f"tuner-{tuner.__version__}-")
    install = [*pip, "install", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True, cwd=tmp_path)
    code = f"import sys\nsys.path.insert(0, {str(site)!r})\nimport tuner\nassert {str(site)!r} in tuner.__file__\n"
    code += "from tuner.space.toml_file import bundled_spaces\nprint(*bundled_spaces().values())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        str(site / "tuner" / "search_spaces" / f"{name}.toml")
        for name in ("article", "cnn", "mobile", "pretrained", "resnet")
    ]


@pytest.mark.slow
def test_doctor_shows_the_device_the_versions_and_every_choice_with_both_times(tmp_path: Path) -> None:
    printed = run_tuner("doctor", "--input", "1x8x8", cwd=tmp_path)
    assert printed.returncode == 0, printed.stderr
    for text in ("cpu", f"torch {torch.__version__.partition('+')[0]}", "runners", "precision", "bf16", "taken"):
        assert text in printed.stdout


@pytest.mark.slow
def test_doctor_says_where_the_measurement_is_kept_or_why_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("COLUMNS", "400")  # no path is broken
    refused = "file: cannot be written: File exists: this machine will be measured again"
    for folder, words in (("cache", "cache/engine-"), ("file", refused)):
        monkeypatch.setenv("TUNER_CACHE_DIR", str(tmp_path / folder))
        printed = run_tuner("doctor", "--device", "cpu", "--input", "1x8x8", cwd=tmp_path)
        assert printed.returncode == 0, printed.stderr
        assert str(tmp_path / words) in printed.stdout
