"""Races are held with curves that are a plain function of the candidate; whole confirmations with real digits."""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.deliver.rehearsed import TEST_SET_OPENED, Opened, confirming
from tests.search.rehearsal import EPOCHS, Losing, Rehearsal, ends_with, rehearse
from tuner.data.sealed import load_test_set
from tuner.data.sources import load_development
from tuner.deliver.conclusion import conclude
from tuner.deliver.confirm import (
    Confirmed,
    ConfirmEvent,
    ConfirmPlan,
    ConfirmStarted,
    _affordable,
    search_seconds,
)
from tuner.deliver.intervals import accuracy_interval, difference_interval
from tuner.deliver.predict import normalise
from tuner.deliver.race import ConfirmProgress, contender_from
from tuner.deliver.scoring import Score
from tuner.errors import StudyError
from tuner.pipeline import RunOptions, confirm_events, limit_to_time, load_summary, run, run_events
from tuner.search.events import SearchEnded
from tuner.search.places import existing_storage
from tuner.search.record import load_study
from tuner.search.runner import TrialTask
from tuner.training.checkpoint import load_checkpoint, model_from
from tuner.training.loop import EpochResult


class Recorder:
    """A trainer of fresh splits: the accuracy of a candidate is its own in the search, but for `worse` ones."""

    def __init__(self, *, worse: tuple[int, ...] = (), failing: tuple[int, ...] = ()) -> None:
        self.worse, self.failing = worse, failing
        self.tasks: list[TrialTask] = []

    def __call__(self, task: TrialTask) -> Iterator[EpochResult]:
        self.tasks.append(task)
        if task.number in self.failing:
            raise RuntimeError("no luck")
        for result in rehearse(task):
            accuracy = 0.2 if task.number in self.worse else result.validation_accuracy
            yield replace(result, validation_accuracy=accuracy)


def race(rehearsal: Rehearsal, trainer: Recorder, **options: Any) -> list[ConfirmEvent]:
    """Every event until the first training on all images has begun."""
    events: list[ConfirmEvent] = []
    with closing(confirming(rehearsal, trainer, **options)) as running:
        for event in running:
            if isinstance(event, ConfirmProgress) and "together" in event.what:
                break
            events.append(event)
    return events


def numbers(tasks: list[TrialTask], split: str) -> list[int]:
    return [task.number for task in tasks if task.split == split]


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    """A study of twelve trials whose best is not the first configuration."""
    rehearsal = Rehearsal(tmp_path_factory.mktemp("rehearsal"))
    rehearsal.run(12)
    return rehearsal


def best_three(rehearsal: Rehearsal) -> list[int]:
    complete = [trial for trial in rehearsal.record().trials() if trial.outcome == "complete"]
    ranked = sorted(complete, key=lambda trial: (-(trial.validation_accuracy or 0), trial.number))
    return [trial.number for trial in ranked[:3]]


def test_the_best_and_the_first_configuration_are_trained_with_every_seed_on_the_same_fresh_splits(
    rehearsal: Rehearsal,
) -> None:
    trainer = Recorder()
    events = race(rehearsal, trainer, num_validation=1)
    expected = list(dict.fromkeys([*best_three(rehearsal), 0]))
    assert events[0] == ConfirmStarted(tuple(expected), 3, ())
    assert numbers(trainer.tasks, "fresh") == expected * 3
    splits = {task.number: [] for task in trainer.tasks}
    for task in trainer.tasks:
        if task.split == "fresh":
            splits[task.number].append((task.split_seed, task.seed))
    assert len(set(splits[0])) == 3
    assert all(seeds == splits[0] for seeds in splits.values())


def test_a_candidate_trains_for_the_epochs_that_were_best_in_the_search(rehearsal: Rehearsal) -> None:
    trainer = Recorder()
    race(rehearsal, trainer)
    best_epochs = {trial.number: trial.best_epoch for trial in rehearsal.record().trials()}
    assert {task.candidate.recipe.epochs for task in trainer.tasks} == {EPOCHS - 1}
    assert all(task.candidate.recipe.epochs == best_epochs[task.number] for task in trainer.tasks)


def test_the_best_mean_wins_though_the_search_saw_another_in_front(rehearsal: Rehearsal) -> None:
    lucky, *_ = best_three(rehearsal)
    trainer = Recorder(worse=(lucky,))
    race(rehearsal, trainer)
    finalists = numbers(trainer.tasks, "none")
    assert lucky not in finalists
    assert finalists[0] in best_three(rehearsal)


def test_a_candidate_clearly_behind_is_dropped_after_its_first_seed_and_one_just_behind_is_not(
    rehearsal: Rehearsal,
) -> None:
    second = best_three(rehearsal)[1]
    trainer = Recorder(worse=(second,))
    race(rehearsal, trainer)
    assert numbers(trainer.tasks, "fresh").count(second) == 1
    trainer = Recorder(worse=(second,))
    race(rehearsal, trainer, num_validation=1)
    assert numbers(trainer.tasks, "fresh").count(second) == 3


def test_a_candidate_that_is_left_alone_gets_every_seed_too_and_the_count_comes_to_its_end(
    rehearsal: Rehearsal,
) -> None:
    best, *others = dict.fromkeys([*best_three(rehearsal), 0])
    trainer = Recorder(worse=tuple(others))
    events = race(rehearsal, trainer)
    assert numbers(trainer.tasks, "fresh") == [best, *others, best, best]
    counts = [(event.done, event.total) for event in events if isinstance(event, ConfirmProgress)]
    all_at_first, left = 3 * (1 + len(others)), 1 + len(others) + 2
    assert counts == [(done, all_at_first if done <= 1 + len(others) else left) for done in range(1, left + 1)]


def test_a_candidate_that_cannot_be_trained_again_is_out_and_the_others_go_on(rehearsal: Rehearsal) -> None:
    best = best_three(rehearsal)[0]
    trainer = Recorder(failing=(best,))
    events = race(rehearsal, trainer)
    assert any(isinstance(event, ConfirmProgress) and "no luck" in event.what for event in events)
    assert best not in numbers(trainer.tasks, "none")


@pytest.mark.parametrize("times", [1, 2])
def test_a_training_whose_process_dies_is_made_again_once(rehearsal: Rehearsal, times: int) -> None:
    best, *_ = best_three(rehearsal)
    trainer = Recorder()
    events = race(rehearsal, trainer, executor=Losing(trainer, best, times=times))
    said = [event.what for event in events if isinstance(event, ConfirmProgress)]
    assert sum("is trained again: lost: the process of runner 0 died" in what for what in said) == 1
    assert (best in numbers(trainer.tasks, "none")) == (times == 1)
    assert any(re.match(rf"trial {best}, seed 1: [0-9.]+%", what) for what in said) == (times == 1)
    assert any("exit code -9" in what and "seed 1" in what for what in said) == (times == 2)


def test_without_a_first_configuration_that_trains_again_the_winner_goes_on_alone(rehearsal: Rehearsal) -> None:
    trainer = Recorder(failing=(0,))
    with pytest.raises(Opened, match=TEST_SET_OPENED):
        list(confirming(rehearsal, trainer))
    assert numbers(trainer.tasks, "none") == best_three(rehearsal)[:1] * 3


def test_a_first_configuration_that_fails_on_all_images_does_not_end_the_confirmation(rehearsal: Rehearsal) -> None:
    trainer = Recorder()

    def train(task: TrialTask) -> Iterator[EpochResult]:
        if task.split == "none" and task.number == 0:
            raise RuntimeError("no luck")
        yield from trainer(task)

    with pytest.raises(Opened, match=TEST_SET_OPENED):
        list(confirming(rehearsal, train))
    assert numbers(trainer.tasks, "none") == best_three(rehearsal)[:1] * 3


def test_a_winner_that_was_scored_alone_is_compared_with_nothing(rehearsal: Rehearsal) -> None:
    trials = {trial.number: trial for trial in rehearsal.record().trials()}
    winner, baseline = contender_from(trials[best_three(rehearsal)[0]]), contender_from(trials[0])
    winner.accuracies, baseline.dropped = {0: 0.9, 1: 0.91}, "seed 1: no luck"
    right = torch.rand(2, 1_000, generator=torch.Generator().manual_seed(0)) < 0.9
    found = conclude(
        winner,
        baseline,
        [winner, baseline],
        {winner.trial.number: [Score(correct_N, 0.1) for correct_N in right]},
        seeds=[1, 2],
        num_trials=12,
        num_openings=1,
        is_full=True,
        seconds=1.0,
        notes=(),
    )
    assert (found.baseline_test_accuracy, found.difference, found.difference_interval) == (None, None, None)
    assert found.beats_baseline == "undecided"
    assert "trial 0, could not be trained again (seed 1: no luck)" in found.notes[0]
    alone = [list(winner.accuracies.values())]
    assert found.interval == accuracy_interval(right.double().mean(1).tolist(), 1_000, on_splits=alone)


def test_the_test_set_is_opened_only_after_the_last_choice(rehearsal: Rehearsal) -> None:
    trainer = Recorder()
    with pytest.raises(Opened, match=TEST_SET_OPENED):
        list(confirming(rehearsal, trainer))
    assert len(numbers(trainer.tasks, "none")) == 6


def test_with_little_time_there_are_fewer_candidates_or_seeds_and_it_is_said(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path)
    ticks = iter(range(10_000))
    rehearsal.run(12, clock=lambda: float(next(ticks)))
    trials = {trial.number: trial for trial in rehearsal.record().trials()}
    each = max(trials[number].seconds for number in best_three(rehearsal))
    amounts = []
    for seconds in (1e9, 12 * each, 6 * each, 0.0):
        trainer = Recorder()
        events = race(rehearsal, trainer, plan=ConfirmPlan(seconds=seconds), num_validation=1)
        assert isinstance(events[0], ConfirmStarted)
        amounts.append(len(numbers(trainer.tasks, "fresh")))
        assert bool(events[0].notes) == (seconds != 1e9)
    assert amounts == sorted(amounts, reverse=True)
    assert amounts[0] > amounts[1] > amounts[-1] >= 1
    assert "--full" in events[0].notes[0]
    assert "the least that there is, which takes longer than a third of the run" in events[0].notes[0]


def test_a_confirmation_takes_no_more_than_is_left_of_the_budget(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path)
    ticks = iter(range(10_000))
    rehearsal.run(4, clock=lambda: float(next(ticks)))
    record = rehearsal.record()
    third = limit_to_time(ConfirmPlan(), record, 1)
    assert third.seconds == pytest.approx(search_seconds(record.trials(), 1) / 2)
    assert third.seconds > 0
    assert limit_to_time(ConfirmPlan(), record, 1, seconds_left=2 * third.seconds) == third
    for left, expected in ((third.seconds / 2, third.seconds / 2), (-1.0, 0.0)):
        limited = limit_to_time(ConfirmPlan(), record, 1, seconds_left=left)
        assert limited == ConfirmPlan(seconds=expected, within="what is left of the budget")


def test_seeds_are_kept_before_candidates_but_for_a_second_one(rehearsal: Rehearsal) -> None:
    trials = {trial.number: replace(trial, seconds=1.0) for trial in rehearsal.record().trials()}
    ranked, baseline = [trials[number] for number in best_three(rehearsal)], contender_from(trials[0])
    tried = [
        _affordable(ranked, baseline, ConfirmPlan(seconds=seconds / 10), num_runners=1)[:2]
        for seconds in range(300, -1, -1)
    ]
    assert list(dict.fromkeys(tried)) == [(3, 3), (2, 3), (3, 2), (2, 2), (1, 2), (3, 1), (2, 1), (1, 1)]


def test_the_wall_time_of_a_search_is_that_of_its_busiest_runner_whatever_runs_it_had(rehearsal: Rehearsal) -> None:
    trial = rehearsal.record().trials()[0]
    two_runners = [replace(trial, runner=runner, seconds=10.0) for runner in (0, 1, 0, 1)]
    then_one = [replace(trial, runner=0, seconds=5.0)]
    assert search_seconds(two_runners + then_one, 8) == 25.0
    assert search_seconds([replace(trial, runner=None, seconds=8.0)] * 2 + then_one, 2) == 13.0
    assert search_seconds([], 2) == 0.0


def test_the_spread_of_seeds_is_estimated_from_all_that_was_trained_again(rehearsal: Rehearsal) -> None:
    trials = {trial.number: trial for trial in rehearsal.record().trials()}
    contenders = [contender_from(trials[number]) for number in {*best_three(rehearsal), 0}]
    generator = torch.Generator().manual_seed(0)
    for one in contenders:
        one.accuracies = dict(enumerate((0.9 + 0.01 * torch.randn(2, generator=generator)).tolist()))
    winner, baseline = contenders[0], contenders[-1]
    right = {one.trial.number: torch.rand(2, 10_000, generator=generator) < 0.95 for one in (winner, baseline)}
    scores = {number: [Score(correct_N, 0.1) for correct_N in correct_SN] for number, correct_SN in right.items()}
    found = conclude(
        winner,
        baseline,
        contenders,
        scores,
        seeds=[1, 2],
        num_trials=12,
        num_openings=1,
        is_full=True,
        seconds=1.0,
        notes=(),
    )
    own, other = (right[one.trial.number].double().mean(1).tolist() for one in (winner, baseline))
    race = [list(one.accuracies.values()) for one in contenders]
    assert found.interval == accuracy_interval(own, 10_000, other=other, on_splits=race)
    assert found.difference_interval == difference_interval(*right.values(), on_splits=race)
    assert found.interval != accuracy_interval(own, 10_000)


def test_a_study_without_a_complete_trial_has_nothing_to_confirm(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path)
    rehearsal.run(1, trainer=ends_with(RuntimeError("no"), after=0), until=lambda event: True)
    with pytest.raises(StudyError, match="no complete trial"):
        race(rehearsal, Recorder())


TINY = """
[network]
num_blocks = { low = 1, high = 2 }
[block]
out_channels = { low = 4, high = 16, step = 4 }
normalization = "batch"
[recipe]
learning_rate = { low = 1e-3, high = 1e-2, log = true }
"""


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunOptions, list[object]]:
    """A study of real digits, confirmed in full, with all its events."""
    folder = tmp_path_factory.mktemp("confirmed")
    (folder / "tiny.toml").write_text(TINY, encoding="utf-8")
    options = RunOptions(
        space=str(folder / "tiny.toml"),
        studies=folder / "studies",
        trials=4,
        epochs=2,
        workers=1,
        device="cpu",
        confirm="in full",
    )
    return options, list(run_events(options))


def test_a_run_ends_with_the_confirmation_of_its_winner(confirmed: tuple[RunOptions, list[object]]) -> None:
    options, events = confirmed
    assert isinstance(events[-1], Confirmed)
    kinds = [type(event) for event in events]
    assert kinds.index(SearchEnded) < kinds.index(ConfirmStarted)
    shown = json.loads(json.dumps(load_summary(options).to_json()))["confirmed"]
    assert shown == json.loads(json.dumps(events[-1].confirmation.to_json()))
    low, high = shown["interval"]
    assert low <= shown["test_accuracy"] <= high
    assert shown["beats_baseline"] in ("yes", "no", "undecided")
    assert len(shown["seeds"]) == 3
    assert shown["gap"] == pytest.approx(shown["search_accuracy"] - shown["test_accuracy"])


def test_the_delivered_checkpoint_scores_what_it_says_on_the_sealed_test_set(
    confirmed: tuple[RunOptions, list[object]],
) -> None:
    options, events = confirmed
    summary = load_summary(options)
    assert summary.delivered is not None
    assert summary.winner is not None
    checkpoint = load_checkpoint(summary.delivered)
    assert checkpoint.origin["trial"] == summary.winner.number
    test_set = load_test_set(options.data_spec)
    with torch.inference_mode():
        logits_NK = model_from(checkpoint)(normalise(test_set.images_NCHW, checkpoint.preprocessing))
    accuracy = float((logits_NK.argmax(1) == test_set.labels_N).double().mean())
    assert isinstance(events[-1], Confirmed)
    assert checkpoint.scores["test_accuracy"] == pytest.approx(accuracy)
    assert events[-1].confirmation.delivered_test_accuracy == checkpoint.scores["test_accuracy"]
    assert "validation_accuracy" not in checkpoint.scores
    assert not (summary.delivered.parent / ".confirm").exists()


def test_the_delivered_network_has_learned_from_train_and_validation_together(
    confirmed: tuple[RunOptions, list[object]],
) -> None:
    options, _ = confirmed
    delivered = load_summary(options).delivered
    assert delivered is not None
    development = load_development(options.data_spec)
    mean = float((development.images_NCHW.double() / 255).mean())
    assert load_checkpoint(delivered).preprocessing.mean == pytest.approx((mean,))


def test_a_complete_and_confirmed_study_is_not_confirmed_again_and_one_with_more_trials_is(
    confirmed: tuple[RunOptions, list[object]],
) -> None:
    options, _ = confirmed
    assert not any(isinstance(event, ConfirmStarted) for event in run_events(options))
    more = replace(options, trials=5, confirm="in time")
    assert isinstance(list(run_events(more))[-1], Confirmed)
    assert load_summary(options).to_json()["confirmed"]["num_trials"] == 5


def test_a_study_can_be_confirmed_later_with_the_same_result_as_at_once(
    confirmed: tuple[RunOptions, list[object]], tmp_path: Path
) -> None:
    options = replace(confirmed[0], studies=tmp_path / "studies", trials=4, confirm="no")
    summary = run(options)
    assert summary.confirmed is None
    first, second = (
        list(confirm_events(options.studies, summary.study, plan=ConfirmPlan(), workers=1))[-1] for _ in range(2)
    )
    assert isinstance(first, Confirmed)
    assert isinstance(second, Confirmed)
    once, twice = first.confirmation, second.confirmation
    assert (once.test_set_openings, twice.test_set_openings) == (1, 2)
    assert not any("opened" in note for note in once.notes)
    assert any("opened 2 times" in note for note in twice.notes)
    again = replace(twice, test_set_openings=1, notes=once.notes)
    assert replace(once, seconds=0.0) == replace(again, seconds=0.0)
    in_time = list(confirm_events(options.studies, summary.study, plan=ConfirmPlan(), in_time=True, workers=1))
    assert any(
        "a third of the run" in note for event in in_time if isinstance(event, ConfirmStarted) for note in event.notes
    )
    at_once = confirmed[1][-1]
    assert isinstance(at_once, Confirmed)
    assert replace(first.confirmation, seconds=0.0) == replace(at_once.confirmation, seconds=0.0)


def test_a_confirmation_in_full_follows_one_that_left_something_out_and_is_not_done_twice(
    confirmed: tuple[RunOptions, list[object]], tmp_path: Path
) -> None:
    options = replace(confirmed[0], studies=tmp_path / "studies", trials=1, confirm="no")
    run(options)
    in_time = list(run_events(replace(options, confirm="in time", budget_seconds=1e-3)))
    (started,) = [event for event in in_time if isinstance(event, ConfirmStarted)]
    assert started.num_seeds == 1
    assert "which takes longer than what is left of the budget" in started.notes[0]
    first = load_summary(options).confirmed
    assert first is not None
    assert not first["is_full"]
    in_full = replace(options, confirm="in full")
    assert isinstance(list(run_events(in_full))[-1], Confirmed)
    second = load_summary(options).confirmed
    assert second is not None
    assert second["is_full"]
    assert len(second["seeds"]) == 3
    for again in (in_full, replace(options, confirm="in time")):
        assert not any(isinstance(event, ConfirmStarted) for event in run_events(again))


def test_images_that_have_changed_since_are_refused(confirmed: tuple[RunOptions, list[object]], tmp_path: Path) -> None:
    options = replace(confirmed[0], studies=tmp_path / "studies", trials=1, confirm="no")
    summary = run(options)
    record = load_study(existing_storage(options.studies), summary.study)
    record.save_data_spec(replace(options.data_spec, image_size=(6, 6)))
    with pytest.raises(StudyError, match="are not those"):
        list(confirm_events(options.studies, summary.study, plan=ConfirmPlan(), workers=1))
