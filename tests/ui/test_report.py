"""The report of studies without images: two trials, two thousand, old ones, and names that look like markup."""

from __future__ import annotations

import re
import shutil
import sqlite3
from html.parser import HTMLParser
from pathlib import Path

import optuna
import pytest

from tests.report_numbers import check_figures, figures_of
from tests.ui.synthetic import NOT_COMPARED, SETTINGS, confirmation, make_study
from tuner.architecture.parts import layers_of
from tuner.architecture.trace import trace
from tuner.errors import StudyError
from tuner.search.storage import open_storage
from tuner.search.study_lookup import load_study, open_study
from tuner.search.summary import summarise
from tuner.training.engine import Engine
from tuner.ui.report.network_drawing import network_drawing
from tuner.ui.report.page import HERE, report_page, write_report
from tuner.ui.report.search_figures import confusion_matrix


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study of 50 trials."""
    folder = tmp_path_factory.mktemp("small")
    make_study(folder, 50)
    return folder


def repeat_trials(database: Path, times: int) -> None:
    """Every trial of a database so many times, each time a little worse: quicker than to write them one by one."""
    connection = sqlite3.connect(database)
    (num_trials,) = connection.execute("SELECT max(trial_id) FROM trials").fetchone()
    tables = ("trial_params", "trial_user_attributes", "trial_system_attributes", "trial_values")
    for again in range(1, times):
        shift, worse = again * num_trials, 1 - again / 10_000
        for table in ("trials", *tables, "trial_intermediate_values"):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            chosen = {
                "trial_id": f"trial_id + {shift}",
                "number": f"number + {shift}",
                "value": f"value * {worse}",
                "intermediate_value": f"intermediate_value * {worse}",
            }
            kept = [column for column in columns if column == "trial_id" or not column.endswith("_id")]
            kept += ["study_id"] if table == "trials" else []
            values = ", ".join(chosen.get(column, column) for column in kept)
            connection.execute(
                f"INSERT INTO {table} ({', '.join(kept)}) SELECT {values} FROM {table} WHERE trial_id <= {num_trials}"
            )
    connection.commit()
    connection.close()


def page_of(folder: Path) -> tuple[str, optuna.Study, int]:
    """The page of the study in a folder, the study as Optuna loads it, and its best trial."""
    url = f"sqlite:///{folder / 'tuner.db'}"
    record = load_study(open_storage(url))
    study = optuna.load_study(study_name=record.name, storage=url)
    return report_page(record, studies=folder), study, study.best_trial.number


class Tags(HTMLParser):
    """The tags of a page with their attributes, and its texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("num_trials", [2, 50])
def test_every_figure_has_the_numbers_of_the_database(tmp_path: Path, small: Path, num_trials: int) -> None:
    if num_trials == 50:
        tmp_path = small
    else:
        make_study(tmp_path, num_trials)
    page, study, winner = page_of(tmp_path)
    check_figures(page, study, winner=winner)
    assert ("importances" in figures_of(page)) == (num_trials == 50)


@pytest.mark.slow
def test_the_report_of_two_thousand_trials_has_the_numbers_of_the_database(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    repeat_trials(tmp_path / "tuner.db", 40)
    page, study, winner = page_of(tmp_path)
    assert len(study.get_trials(deepcopy=False)) >= 2_000
    check_figures(page, study, winner=winner)
    assert len(page) < 12_000_000


def test_a_page_asks_for_nothing_and_forbids_itself_to(small: Path) -> None:
    page, _, _ = page_of(small)
    tags = Tags(page).tags
    policies = [attributes for tag, attributes in tags if attributes.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in (policies[0]["content"] or "")
    for tag, attributes in tags:
        assert tag not in ("iframe", "object", "embed", "base")
        for name in ("src", "href", "srcset", "action"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)


def test_before_a_confirmation_the_score_is_called_optimistic_and_where_images_would_be_the_reason_is_said(
    small: Path,
) -> None:
    page, study, winner = page_of(small)
    head = page[page.index('<header id="verdict"') : page.index("</header>")]
    assert f"Trial {winner} has the best validation accuracy" in head
    assert f"{study.best_value:.2%}" in head
    assert "optimistic" in head
    assert "tuner confirm synthetic" in head
    assert 'id="confusion-absent"' in page
    assert "trial-" in page[page.index('id="confusion-absent"') :]


@pytest.mark.parametrize(
    ("beats", "words"),
    [("yes", "It beats the first"), ("no", "It does not beat"), ("undecided", "is undecided")],
)
def test_a_confirmed_verdict_comes_first_in_words_with_its_intervals(tmp_path: Path, beats: str, words: str) -> None:
    record = make_study(tmp_path, 2)
    record.save_confirmed(confirmation(beats_baseline=beats))
    page = report_page(record, studies=tmp_path)
    head = page[page.index('<header id="verdict"') : page.index("</header>")]
    assert page.index("<header") < page.index("<h2>")
    for text in (
        "97.12%",
        "96.00% to 98.00%",
        "3 seeds",
        "+2.12 points",
        "+1.00 to +3.12",
        "97.33%",
        "99.00%",
        "1.88 points higher",
        words,
    ):
        assert text in head, text
    assert "<b>in haste" not in head
    assert "&lt;b&gt;in haste&lt;/b&gt;; <code>tuner confirm --full</code>" in head
    assert "optimistic" not in head


def test_a_winner_that_is_the_first_configuration_is_compared_with_nothing(tmp_path: Path) -> None:
    record = make_study(tmp_path, 2)
    same = {"baseline_number": 0, "difference": 0.0, "difference_interval": [0.0, 0.0], "beats_baseline": "no"}
    record.save_confirmed(confirmation(**same))
    page = report_page(record, studies=tmp_path)
    head = page[page.index('<header id="verdict"') : page.index("</header>")]
    assert "It is the first configuration; nothing else was trained again." in head
    assert 'class="lead first"' in head
    for text in ("+0.00", "does not beat", 'class="interval"', "over the baseline"):
        assert text not in head


def test_a_first_configuration_that_could_not_be_trained_again_is_compared_with_nothing(tmp_path: Path) -> None:
    record = make_study(tmp_path, 2)
    record.save_confirmed(confirmation(**NOT_COMPARED))
    page = report_page(record, studies=tmp_path)
    head = page[page.index('<header id="verdict"') : page.index("</header>")]
    assert "Whether it beats the first configuration is undecided." in head
    assert "trial 1, could not be trained again" in head
    for text in ("None", 'class="interval"', "over the baseline"):
        assert text not in head


def test_a_verdict_says_that_later_trials_were_not_considered(tmp_path: Path) -> None:
    record = make_study(tmp_path, 3)
    record.save_confirmed(confirmation())
    page = report_page(record, studies=tmp_path)
    head = page[page.index('<header id="verdict"') : page.index("</header>")]
    assert "The study had 2 trials then and has 3 now" in head
    assert "<code>tuner confirm synthetic</code>" in head
    record.save_confirmed(confirmation(num_trials=3))
    assert "later ones" not in report_page(record, studies=tmp_path)


def test_the_layer_table_and_the_drawing_show_every_layer_of_the_winner(small: Path) -> None:
    page, study, winner = page_of(small)
    summary = summarise(load_study(open_storage(f"sqlite:///{small / 'tuner.db'}")), studies=small)
    assert summary.best is not None
    parts = trace(summary.best.candidate.architecture)
    table = page[page.index("<table class='layers'>") : page.index("</table>", page.index("<table class='layers'>"))]
    for layer in layers_of(parts):
        assert layer.source.removeprefix("nn.") in table
    assert f"<td>{study.trials[winner].user_attrs['num_parameters']:,}</td>" in table
    assert f"<td>{study.trials[winner].user_attrs['flops']:,}</td>" in table
    drawing = network_drawing(parts)
    assert drawing in page
    shapes = re.findall(r'class="shape"[^>]*>([^<]+)<', drawing)
    assert shapes[0] == "1×8×8"
    assert shapes[-1] == "10"
    assert drawing.count("<rect") == len(shapes)


def test_a_study_without_a_complete_trial_has_a_page_that_says_so(tmp_path: Path) -> None:
    record = open_study(open_storage(f"sqlite:///{tmp_path / 'tuner.db'}"), "empty", SETTINGS, engine=Engine("cpu"))
    page = report_page(record, studies=tmp_path)
    assert "No trial is complete yet" in page
    assert figures_of(page) == {}
    assert page.count('class="absent"') >= 6


def test_a_page_that_cannot_be_written_whole_leaves_the_older_one(tmp_path: Path) -> None:
    """A full disk is had by a limit on the length of files."""
    record = open_study(open_storage(f"sqlite:///{tmp_path / 'tuner.db'}"), "empty", SETTINGS, engine=Engine("cpu"))
    resource = pytest.importorskip("resource")
    output, limits = tmp_path / "pages" / "report.html", resource.getrlimit(resource.RLIMIT_FSIZE)
    output.parent.mkdir()
    output.write_text("an older page")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(StudyError, match=r"report\.html: cannot be written"):
            write_report(record, studies=tmp_path, output=output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert output.read_text() == "an older page"
    assert list(output.parent.iterdir()) == [output]
    write_report(record, studies=tmp_path, output=output)
    assert "No trial is complete yet" in output.read_text(encoding="utf-8")
    assert list(output.parent.iterdir()) == [output]


def test_a_study_of_before_runners_and_latencies_were_kept_has_its_report(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    with sqlite3.connect(tmp_path / "tuner.db") as connection:
        connection.execute("DELETE FROM trial_user_attributes WHERE key IN ('runner', 'latency_ms')")
    connection.close()
    page, _, _ = page_of(tmp_path)
    assert 'id="timeline-absent"' in page
    assert 'id="accuracy-latency-absent"' in page
    assert "history" in figures_of(page)


def test_names_that_look_like_markup_are_letters_and_nothing_else(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    record = make_study(tmp_path, 2, name="synthetic")
    hostile = {"dataset": evil, "space_name": evil}
    record.storage.set_study_user_attr(record.study_id, "tuner:settings", SETTINGS.to_json() | hostile)
    record.name = evil  # which no study is loaded with
    page = report_page(record, studies=tmp_path)
    parsed = Tags(page)
    assert not [attributes for tag, attributes in parsed.tags if tag == "img" or "onerror" in attributes]
    assert sum(tag == "script" and not attributes for tag, attributes in parsed.tags) == 2
    assert any(evil in text for text in parsed.texts)
    figure = confusion_matrix(((1, 0), (2, 3)), (evil, "b"))
    assert "<" not in str(figure.layout) + str(figure.data[0]["customdata"])


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, as WCAG 2 defines it."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_counts_of_a_confusion_matrix_have_one_colour_that_is_read_on_cells_of_any_strength() -> None:
    data = confusion_matrix(((5, 1), (0, 7)), ("a", "b")).data
    cells = {name.removeprefix("$") for trace in data for _, name in trace["colorscale"]}
    assert [trace["textfont"] for trace in data] == [{"color": "$ink"}] * 2
    light, dark = (HERE / "page.css").read_text(encoding="utf-8").split("@media (prefers-color-scheme: dark)")
    for theme in (light, dark):
        colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", theme))
        for name in cells:
            bright, dim = sorted((luminance(colours["ink"]), luminance(colours[name])), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 4.5


def test_a_confusion_matrix_parts_what_is_right_from_what_is_wrong() -> None:
    right, wrong = confusion_matrix(((5, 1, 0), (0, 7, 2), (0, 0, 9)), ("a", "b", "c")).data
    assert right["z"] == [[5, None, None], [None, 7, None], [None, None, 9]]
    assert wrong["z"] == [[None, 1, None], [None, None, 2], [None, None, None]]
    assert wrong["customdata"][1][2] == "b taken for c: 2"
    assert "too many classes" in confusion_matrix(None, ("a",) * 500).absent
