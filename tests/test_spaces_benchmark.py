"""The benchmark of search spaces: what it samples, trains, computes, stores and compares."""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks import spaces
from benchmarks.cli import main
from benchmarks.distributions import first_line, summarise, table
from benchmarks.learning_curves import CurveTrainer, Runners, train_curves
from benchmarks.rank_correlation import rank_correlation, separations
from benchmarks.references import choose_reference, load_references, reference_candidate
from benchmarks.sampled_networks import draw_networks, parameters_without_effect
from benchmarks.space_comparison import compare, comparison_table
from benchmarks.space_results import (
    FORMAT,
    Measurement,
    RepeatedNetwork,
    Run,
    SampledNetwork,
    Settings,
    SpaceResult,
    load_results,
    save_results,
)
from benchmarks.spaces import Plan, measure_on
from benchmarks.subset import Rows, choose_rows
from tests.search.rehearsal import DIGITS, EPOCHS, FINITE_SPACE, SPACE, Losing, curve_of, ends_with, rehearse
from tests.strategies import BUNDLED, make_space
from tuner.architecture.spec import InputSpec
from tuner.data.dataset import DataSpec, ImageDataset
from tuner.data.development_part import load_development
from tuner.deliver.intervals import wilson
from tuner.errors import DataError, RunnerError, SpaceError
from tuner.search.executors import InProcess
from tuner.search.tasks import SearchTask, TrialTask
from tuner.space.sampling import candidate_from, distributions, draw, first_params, random_params
from tuner.training.engine import Engine
from tuner.training.results import Diverged, EpochResult

UNLIMITED = float("inf")
RGB, GREY = InputSpec(3, 32, 32, 10), InputSpec(1, 28, 28, 10)
TINY = make_space(
    name="tiny",
    block={"out_channels": [2, 4, 8, 16], "kernel_size": [3, 5]},
    first=[{"block": [{"out_channels": 8}, {"out_channels": 8}]}],
)


def network(accuracy: float, *, outcome: Any = "finished", flops: int = 100, **params: Any) -> SampledNetwork:
    return SampledNetwork(params, (), {}, flops, flops, Run(outcome, "", (0.0, accuracy), 1.0))


def plan_of(tmp_path: Path, *, epochs: int) -> Plan:
    data = DataSpec("digits", tmp_path, tmp_path / "cache")
    return Plan(("tiny",), data, num_samples=3, num_images=100, epochs=epochs, num_seeds=2, seed=0)


def measured(accuracies: list[float], *, name: str = "one", **changed: Any) -> Measurement:
    """A measurement with a reference of 60 % and networks of these accuracies, each of ten times the FLOPs before."""
    reference = RepeatedNetwork({"of": "reference"}, 100, 10, (Run("finished", "", (0.6,), 1.0),) * 3, 0.6, (0.5, 0.7))
    first = replace(reference, candidate={"of": name}, accuracy=0.595)
    networks = tuple(network(one, flops=10**row, size=row) for row, one in enumerate(accuracies))
    space = SpaceResult(name, {}, first, -0.005, (-0.02, 0.01), networks, 1, 2, 3, 4.0)
    settings = Settings("mnist", "d", num_train=5_000, num_validation=5_000, epochs=3, reference="mnist")
    return Measurement(FORMAT, replace(settings, **changed), 0, "machine", "2", {}, reference, (space,))


# References


@pytest.mark.parametrize(
    ("name", "input_spec", "fingerprint"),
    [
        ("cifar10", RGB, "032dbf964d27c9bd"),
        ("mnist", GREY, "723234484633f7ba"),
        ("digits", DIGITS, "5a585af1db171914"),
    ],
)
def test_a_reference_stays_as_it_is(name: str, input_spec: InputSpec, fingerprint: str) -> None:
    reference = load_references()[name]
    assert reference_candidate(reference, input_spec, epochs=3).fingerprint == fingerprint


def test_the_reference_of_cifar10_is_resnet8() -> None:
    reference = reference_candidate(load_references()["cifar10"], RGB, epochs=3)
    space = BUNDLED["resnet"]
    resnet8 = candidate_from(first_params(space)[0], space, RGB, epochs=3)
    assert str(reference.architecture).count("residual") == 3
    assert reference.architecture == resnet8.architecture


def test_a_set_without_a_reference_needs_the_name_of_one() -> None:
    assert choose_reference("mnist").name == "mnist"
    with pytest.raises(DataError, match=r"a reference is one of cifar10, digits, mnist .* got 'birds'"):
        choose_reference("birds")


# Sampled networks


def test_networks_are_drawn_as_random_params_draws_them_and_differ() -> None:
    draws = draw_networks(SPACE, DIGITS, epochs=EPOCHS, num_networks=5, seed=3, step_bytes=UNLIMITED)
    generator = random.Random(3)
    assert [one.params for one in draws.networks] == [random_params(SPACE, generator) for _ in range(5)]
    assert len({one.candidate.fingerprint for one in draws.networks}) == 5


def test_a_small_space_gives_all_of_its_networks_and_counts_the_repeated_draws() -> None:
    draws = draw_networks(FINITE_SPACE, DIGITS, epochs=1, num_networks=100, seed=0, step_bytes=UNLIMITED)
    assert len(draws.networks) == 9
    assert draws.num_repeated > 100


def test_draws_beyond_the_limit_of_the_space_are_rejected_and_counted() -> None:
    limited = SPACE.model_copy(update={"max_parameters": 3_000})
    draws = draw_networks(limited, DIGITS, epochs=1, num_networks=20, seed=0, step_bytes=UNLIMITED)
    assert max(one.cost.num_parameters for one in draws.networks) <= 3_000
    assert draws.num_rejected > 0
    for update, step_bytes in (({"max_parameters": 1}, UNLIMITED), ({}, 1.0)):
        none = SPACE.model_copy(update=update)
        with pytest.raises(SpaceError, match=r"space 'tiny': at least one of 1,000 networks must be within"):
            draw_networks(none, DIGITS, epochs=1, num_networks=20, seed=0, step_bytes=step_bytes)


@pytest.mark.parametrize("name", ["cnn", "resnet", "mobile"])
def test_a_parameter_without_effect_can_have_any_value_and_the_others_cannot(name: str) -> None:
    space, generator = BUNDLED[name], random.Random(0)
    params = random_params(space, generator)
    candidate = candidate_from(params, space, RGB, epochs=3)
    unused = set(parameters_without_effect(params, candidate, space))
    if "optimizer" in params:
        assert {f"learning_rate_{one}" for one in space.recipe.optimizer.values if one != params["optimizer"]} <= unused
        assert not unused & {"optimizer", "batch_size", f"learning_rate_{params['optimizer']}"}
    else:
        assert not unused & {"learning_rate", "batch_size"}
    for _ in range(5):
        redrawn = {key: value for key, value in draw(distributions(space), generator).items() if key in unused}
        assert candidate_from({**params, **redrawn}, space, RGB, epochs=3) == candidate


# Training


CANDIDATES = [
    (one.candidate, 0)
    for one in draw_networks(SPACE, DIGITS, epochs=EPOCHS, num_networks=3, seed=0, step_bytes=UNLIMITED).networks
]


TASKS = [SearchTask(number, candidate, 0) for number, (candidate, _) in enumerate(CANDIDATES)]


def test_every_network_is_trained_to_its_last_epoch() -> None:
    trained = list(train_curves(CANDIDATES, InProcess(rehearse)))
    assert [one.number for one in trained] == [0, 1, 2]
    assert [one.run.outcome for one in trained] == ["finished"] * 3
    assert [list(one.run.curve) for one in trained] == [curve_of(one) for one in TASKS]
    assert trained[0].run.accuracy == curve_of(TASKS[0])[-1]


class Clock:
    """Each epoch takes 10 seconds."""

    now = 0.0

    def train(self, task: TrialTask) -> Iterator[EpochResult]:
        for result in rehearse(task):
            self.now += 10.0
            yield result


@pytest.mark.parametrize(("seconds", "num_ended"), [(60.0, 0), (61.0, 1), (71.0, 1), (130.0, 2), (1000.0, 3)])
def test_no_network_begins_near_the_time_limit_and_none_trains_beyond_it(seconds: float, num_ended: int) -> None:
    clock = Clock()
    trained = list(train_curves(CANDIDATES, InProcess(clock.train), seconds=seconds, clock=lambda: clock.now))
    assert [one.number for one in trained] == list(range(num_ended))
    assert {len(one.run.curve) for one in trained} <= {EPOCHS}
    assert clock.now <= seconds


def test_a_network_whose_process_died_is_trained_once_more() -> None:
    first, *_ = train_curves(CANDIDATES, Losing(rehearse, 0, times=1))
    assert (first.number, first.run.outcome, list(first.run.curve)) == (0, "finished", curve_of(TASKS[0]))


@pytest.mark.parametrize(
    ("error", "outcome", "is_counted"),
    [(Diverged("no"), "diverged", True), (MemoryError(), "out of memory", False), (ValueError("no"), "failed", False)],
)
def test_a_network_that_diverges_counts_with_an_accuracy_of_0_and_one_that_fails_does_not(
    error: BaseException, outcome: str, is_counted: bool
) -> None:
    trained = list(train_curves(CANDIDATES, InProcess(ends_with(error, after=2))))
    assert {(one.run.outcome, one.run.is_counted, one.run.accuracy) for one in trained} == {(outcome, is_counted, 0.0)}
    assert {len(one.run.curve) for one in trained} == {2}


def test_spaces_are_measured_on_real_images_and_their_curves_are_stored(tmp_path: Path) -> None:
    images = load_development(DataSpec("digits", tmp_path, tmp_path / "cache"))
    rows = choose_rows(len(images.labels_N), 100)
    trainer = CurveTrainer(images.folder, "spaces", tmp_path / "none", 0, Engine(), rows=rows)
    runners = Runners(InProcess(trainer), Engine(), UNLIMITED)
    plan = plan_of(tmp_path, epochs=1)
    said: list[str] = []
    result = measure_on(runners, plan, [TINY], load_references()["digits"], images, rows, say=said.append)
    assert len(said) == 2 * 2 + 3
    assert not (tmp_path / "none").exists()
    (space,) = result.spaces
    assert [len(one.run.curve) for one in space.networks] == [1, 1, 1]
    assert result.reference.accuracy == pytest.approx(np.mean([run.accuracy for run in result.reference.runs]))
    assert result.reference.interval is not None
    assert space.difference == pytest.approx(space.first.accuracy - result.reference.accuracy)
    assert space.difference_interval is not None
    low, high = space.difference_interval
    assert low < space.difference < high
    save_results(result, tmp_path / "file.json")
    assert load_results(tmp_path / "file.json") == result
    assert summarise(load_results(tmp_path / "file.json")) == summarise(result)


def test_a_reference_that_does_not_finish_is_an_error(tmp_path: Path) -> None:
    images = load_development(DataSpec("digits", tmp_path, tmp_path / "cache"))
    runners = Runners(InProcess(ends_with(Diverged("the loss is nan"))), Engine(), UNLIMITED)
    plan = plan_of(tmp_path, epochs=EPOCHS)
    with pytest.raises(RunnerError, match=r"reference did not with seed 0 \(diverged\): the loss is nan"):
        measure_on(
            runners, plan, [TINY], load_references()["digits"], images, choose_rows(1_437, 100), say=lambda _: None
        )


# Figures


def test_the_figures_of_a_space_are_those_of_its_accuracies() -> None:
    (one,) = summarise(measured([0.1, 0.2, 0.3, 0.65, 0.5]))["spaces"]
    assert one["quartiles"] == pytest.approx([0.2, 0.3, 0.5])
    assert (one["best"], one["worst"], one["better"]) == (0.65, 0.1, 1)
    assert one["share_better_interval"] == wilson(0.2, 5)
    assert one["median_below_reference"] == pytest.approx(0.3)
    assert one["flops"]["ratio"] == 10_000
    assert (one["rejected"], one["repeated"], one["untrained"]) == (1, 2, 3)
    assert [row["error"] for row in one["errors"]] == pytest.approx([0.4, 0.42, 0.45, 0.5, 0.6, 0.8])
    assert [row["share"] for row in one["errors"]] == pytest.approx([0.2, 0.2, 0.2, 0.4, 0.4, 0.8])
    assert one["goals"] == {"share": True, "median": False, "flops": True}


def test_networks_that_the_machine_ended_do_not_count() -> None:
    result = measured([0.1, 0.2])
    ended = (network(0.9, outcome="failed"), network(0.9, outcome="out of memory"), network(0.9, outcome="diverged"))
    space = replace(result.spaces[0], networks=(*result.spaces[0].networks, *ended))
    (one,) = summarise(replace(result, spaces=(space,)))["spaces"]
    assert (one["networks"], one["failed"], one["diverged"], one["worst"]) == (3, 2, 1, 0.0)


@pytest.mark.parametrize(
    ("difference", "interval", "words"),
    [
        (-0.005, (-0.009, 0.0), "-0.5 points (-0.9 to +0.0) from the reference: matches within 1 point"),
        (-0.005, (-0.02, 0.01), "matches within 1 point; to be sure of it, give more --seeds"),
        (-0.03, (-0.04, -0.02), "-3.0 points (-4.0 to -2.0) from the reference: does not match within 1 point"),
        (0.2, None, "+20.0 points from the reference: matches within 1 point"),
    ],
)
def test_a_first_configuration_matches_if_it_is_at_most_a_point_below(
    difference: float, interval: tuple[float, float] | None, words: str
) -> None:
    result = measured([])
    space = replace(result.spaces[0], difference=difference, difference_interval=interval)
    summary = summarise(replace(result, spaces=(space,)))
    assert first_line(summary["spaces"][0], summary).endswith(words)


def test_a_first_configuration_that_is_the_reference_is_reported_as_that() -> None:
    result = measured([])
    summary = summarise(replace(result, spaces=(replace(result.spaces[0], first=result.reference),)))
    assert first_line(summary["spaces"][0], summary) == "one: the first configuration is the reference"


def test_the_text_has_what_limits_the_figures() -> None:
    text = table(summarise(measured([0.1, 0.2, 0.3, 0.65, 0.5])))
    assert "the time limit was reached: 3 networks are missing, rather slow ones" in text
    assert "better than the reference: 1 of 5, 20.0 % (3.6 to 62.4 %); goal 12.5 %: reached" in text
    assert "with 5 networks only strong effects show" in text


# Parameters


@pytest.mark.parametrize("seed", range(5))
def test_the_correlation_is_spearmans_and_its_p_value_agrees_with_scipys(seed: int) -> None:
    generator = np.random.default_rng(seed)
    values_N, accuracies_N = generator.integers(0, 5, 32).astype(float), generator.random(32).round(1)
    expected = stats.spearmanr(values_N, accuracies_N)
    correlation, p_value = rank_correlation(values_N, accuracies_N)
    assert correlation == pytest.approx(expected.statistic)
    assert p_value == pytest.approx(expected.pvalue, abs=0.02)


def test_the_p_value_of_a_perfect_order_is_its_share_of_all_orders() -> None:
    correlation, p_value = rank_correlation(np.arange(5.0), np.arange(5.0))
    assert correlation == pytest.approx(1.0)
    assert p_value == pytest.approx(2 / 120, abs=0.004)


def test_the_parameters_that_separate_good_networks_from_bad_come_first() -> None:
    generator = np.random.default_rng(0)
    networks = []
    for _ in range(32):
        words = [str(generator.choice(["relu", "sigmoid"])) for _ in range(2)]
        accuracy = 0.6 - 0.2 * words.count("sigmoid") + float(generator.normal(0, 0.01))
        params = {"block1_activation": words[0], "block2_activation": words[1], "dropout": float(generator.random())}
        networks.append(network(accuracy, flops=int(generator.integers(1, 10**6)), **params))
    first, *others = separations(networks)
    assert first.name == "each_activation = sigmoid"
    assert (first.num_networks, first.p_value) == (32, pytest.approx(1e-4))
    assert first.correlation < -0.85
    assert first.accuracy_high < first.accuracy_low - 0.1
    assert {one.name for one in others[:2]} == {"block1_activation = sigmoid", "block2_activation = sigmoid"}
    assert min(one.p_value for one in others[2:]) > 0.01


def test_a_network_in_which_a_parameter_has_no_effect_is_not_counted_for_it() -> None:
    networks = [network(0.1 * row, size=row, other=row % 2) for row in range(8)]
    networks[:2] = [replace(one, without_effect=("size",)) for one in networks[:2]]
    assert {one.name: one.num_networks for one in separations(networks)} == {"size": 6, "other": 8}


# Files and comparisons


def test_a_comparison_puts_both_distributions_side_by_side() -> None:
    before, after = measured([0.1, 0.2, 0.3, 0.4, 0.5]), measured([0.5, 0.55, 0.6, 0.65, 0.7], name="redrawn")
    (one,) = compare(before, after)["spaces"]
    assert one["names"] == ["one", "redrawn"]
    assert one["share_of_pairs_better"] == pytest.approx(24.5 / 25)
    assert one["p_value"] < 0.02
    text = comparison_table(compare(before, after))
    assert "one -> redrawn" in text
    assert next(line.split()[-4:] for line in text.splitlines() if "median" in line) == ["30.0", "%", "60.0", "%"]
    (same,) = compare(before, before)["spaces"]
    assert (same["share_of_pairs_better"], same["p_value"]) == (0.5, 1.0)


def test_what_was_not_trained_alike_is_not_compared() -> None:
    with pytest.raises(DataError, match=r"the same settings, and they differ in epochs \(3 and 4\)"):
        compare(measured([0.1]), measured([0.1], epochs=4))
    two = measured([0.1])
    two = replace(two, spaces=(replace(two.spaces[0], name="a"), replace(two.spaces[0], name="b")))
    with pytest.raises(DataError, match=r"a space of the same name; they have one and a, b"):
        compare(measured([0.1]), two)
    with pytest.raises(DataError, match="must have trained networks of one"):
        compare(measured([]), measured([0.1]))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        ("{", "must be a file that `python -m benchmarks spaces` wrote"),
        ("[]", "must be a file that `python -m benchmarks spaces` wrote"),
        ('{"format": 9}', "format 9 of results of spaces, and this version reads format 1"),
    ],
)
def test_a_file_that_holds_no_results_is_one_line(
    content: str | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if content is not None:
        (tmp_path / "file.json").write_text(content)
    assert run(monkeypatch, "spaces", "--from", tmp_path / "file.json") == 2
    error = capsys.readouterr().err
    assert error.startswith("benchmarks: error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--samples 1", "'--samples'"),
        ("--epochs 0", "'--epochs'"),
        ("--seconds 0", "'--seconds'"),
        ("--space nix", "no search space 'nix'"),
        ("--space cnn --space cnn", "every --space must have a name of its own, got cnn, cnn"),
        ("--dataset digits --reference nix", "got 'nix': give one of these as --reference"),
        ("--from a --from b --from c", "at most two files can be given, got 3"),
        ("-o {tmp}", "--output must be a new file"),
        ("-o {tmp}/nix/file.json", "--output must be in an existing folder"),
    ],
)
def test_a_mistake_is_found_before_anything_is_trained(
    arguments: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "spaces", *arguments.format(tmp=tmp_path).split()) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.slow
def test_the_command_prints_the_same_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    budget = ("--dataset", "digits", "--epochs", "1", "--images", "100", "--seeds", "2")
    assert run(monkeypatch, "spaces", *budget, "--samples", "3", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["settings"]["num_train"] == 100
    assert printed["spaces"][0]["networks"] == 3
    assert printed["spaces"][0]["first_is_reference"] is True
    assert run(monkeypatch, "spaces", "--from", "spaces.json", "--json") == 0
    assert json.loads(capsys.readouterr().out) == printed
    assert run(monkeypatch, "spaces", "--from", "spaces.json", "--from", "spaces.json") == 0
    assert "50.0 % of the pairs (p 1.0000)" in capsys.readouterr().out
    assert run(monkeypatch, "references", *budget, "--space", "article", "--json") == 0
    (article,) = json.loads(capsys.readouterr().out)["spaces"]
    assert article["first_matches"] is (article["first_difference"] >= -0.01)


def test_references_prints_whether_each_first_configuration_matches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def plain_runner(images: ImageDataset, rows: Rows, *, work: Path, workers: int | None) -> Iterator[Runners]:
        trainer = CurveTrainer(images.folder, "spaces", work, 0, Engine(), rows=rows)
        yield Runners(InProcess(trainer), Engine(), UNLIMITED)

    monkeypatch.setattr(spaces, "open_runners", plain_runner)  # what this machine measures is not tested here
    monkeypatch.chdir(tmp_path)
    budget = ("--dataset", "digits", "--epochs", "1", "--images", "100", "--seeds", "2")
    assert run(monkeypatch, "references", *budget, "--space", "cnn", "--space", "article") == 0
    *_, cnn, article = capsys.readouterr().out.splitlines()
    assert cnn == "cnn: the first configuration is the reference"
    assert re.match(r"article: first configuration .* from the reference: (matches|does not match) within 1 p", article)
