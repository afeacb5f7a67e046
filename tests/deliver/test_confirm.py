"""Races are held with curves that are a plain function of the candidate; whole confirmations with real digits."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.deliver.rehearsed import TEST_SET_OPENED, Opened, confirming
from tests.search.rehearsal import EPOCHS, Losing, Rehearsal, ends_with, rehearse
from tuner.data.development_part import load_development
from tuner.data.sealed import load_test_set
from tuner.deliver.classifier import normalise
from tuner.deliver.conclusion import Confirmation, conclude
from tuner.deliver.confirm import (
    Confirmed,
    ConfirmEvent,
    ConfirmStarted,
    baseline_trial,
)
from tuner.deliver.confirm_plan import MAX_EPOCH_FACTOR, ConfirmPlan, affordable, limit_to_time, search_seconds
from tuner.deliver.contenders import Contender, Splits, contender_from, spread_of
from tuner.deliver.intervals import accuracy_interval, difference_interval, pool, spread_of_seeds
from tuner.deliver.retraining import ConfirmProgress
from tuner.deliver.scoring import Score
from tuner.errors import StudyError
from tuner.options import RunOptions
from tuner.pipeline import confirm_events, load_summary, run, run_events
from tuner.search.events import SearchEnded, TrialPreparing
from tuner.search.executors import Answer, InProcess
from tuner.search.image_trainer import ImageTrainer
from tuner.search.record import StudyRecord
from tuner.search.study_files import retrainings_folder
from tuner.search.study_location import existing_storage
from tuner.search.study_lookup import load_study
from tuner.search.tasks import AllImagesTask, FreshSplitTask, SeedGroup, TrainingEnded, TrialTask
from tuner.search.trial_record import TrialRecord
from tuner.search.trial_runner import Trainer
from tuner.training.checkpoint import load_checkpoint, model_from
from tuner.training.results import Diverged, EpochResult, Preparing


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


class TwoRunners:
    """Two runners in this process; trainings of one trial continue only while nothing else runs."""

    num_runners = 2

    def __init__(self, trainer: Trainer, slow: int) -> None:
        self._runners = [InProcess(trainer), InProcess(trainer)]
        self._slow, self._running = slow, dict[int, TrialTask]()
        self.most_slow = 0

    def start(self, runner: int, task: TrialTask) -> None:
        self._runners[runner].start(0, task)
        self._running[runner] = task
        self.most_slow = max(self.most_slow, [one.number for one in self._running.values()].count(self._slow))

    def next_epoch(self, runner: int) -> None:
        self._runners[runner].next_epoch(0)

    def stop(self, runner: int) -> None:
        self._runners[runner].stop(0)
        del self._running[runner]

    def close(self) -> None:
        """Nothing to end."""

    def answers(self, timeout: float) -> list[tuple[int, Answer]]:
        quick = [runner for runner, task in self._running.items() if task.number != self._slow]
        runner, *_ = quick or self._running
        ((_, answer),) = self._runners[runner].answers(timeout)
        if isinstance(answer, TrainingEnded):
            del self._running[runner]
        return [(runner, answer)]


def race(rehearsal: Rehearsal, trainer: Trainer, **options: Any) -> list[ConfirmEvent]:
    """Every event until the first training on all images has begun."""
    events: list[ConfirmEvent] = []
    with closing(confirming(rehearsal, trainer, **options)) as running:
        for event in running:
            if isinstance(event, ConfirmProgress) and "together" in event.what:
                break
            events.append(event)
    return events


def numbers(tasks: list[TrialTask], kind: type[TrialTask]) -> list[int]:
    return [task.number for task in tasks if isinstance(task, kind)]


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
    assert numbers(trainer.tasks, FreshSplitTask) == expected * 3
    splits = {task.number: [] for task in trainer.tasks}
    for task in trainer.tasks:
        if isinstance(task, FreshSplitTask):
            splits[task.number].append((task.split_seed, task.seed))
    assert len(set(splits[0])) == 3
    assert all(seeds == splits[0] for seeds in splits.values())


def test_a_free_runner_trains_the_second_seed_while_another_still_trains_the_first(rehearsal: Rehearsal) -> None:
    trainer, best = Recorder(), best_three(rehearsal)[0]
    executor = TwoRunners(trainer, slow=best)
    race(rehearsal, trainer, executor=executor, plan=ConfirmPlan(num_candidates=1, num_seeds=2))
    assert sorted(numbers(trainer.tasks, FreshSplitTask)) == [0, 0, best, best]
    assert executor.most_slow == 2


def test_what_is_computed_before_the_first_epoch_is_reported_in_the_race_and_on_all_images(
    rehearsal: Rehearsal,
) -> None:
    progress = Preparing("computing features", 320, 1_797)

    def train(task: TrialTask) -> Iterator[EpochResult | Preparing]:
        yield progress
        yield from Recorder()(task)

    events: list[ConfirmEvent] = []
    with closing(confirming(rehearsal, train)) as running:
        for event in running:
            events.append(event)
            if isinstance(event, ConfirmProgress) and "together" in event.what:
                break
    first, *_ = best_three(rehearsal)
    assert events[1] == TrialPreparing(first, progress)
    race_ended = max(at for at, event in enumerate(events[:-1]) if isinstance(event, ConfirmProgress))
    assert [type(event) for event in events[race_ended + 1 :]] == [TrialPreparing, ConfirmProgress]


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
    finalists = numbers(trainer.tasks, AllImagesTask)
    assert lucky not in finalists
    assert finalists[0] in best_three(rehearsal)


def test_a_candidate_clearly_behind_is_dropped_after_two_seeds_and_one_just_behind_is_not(
    rehearsal: Rehearsal,
) -> None:
    second = best_three(rehearsal)[1]
    trainer = Recorder(worse=(second,))
    race(rehearsal, trainer)
    assert numbers(trainer.tasks, FreshSplitTask).count(second) == 2
    trainer = Recorder(worse=(second,))
    race(rehearsal, trainer, num_validation=1)
    assert numbers(trainer.tasks, FreshSplitTask).count(second) == 3


def test_a_candidate_that_is_left_alone_gets_every_seed_too_and_the_count_comes_to_its_end(
    rehearsal: Rehearsal,
) -> None:
    best, *others = dict.fromkeys([*best_three(rehearsal), 0])
    trainer = Recorder(worse=tuple(others))
    events = race(rehearsal, trainer)
    assert numbers(trainer.tasks, FreshSplitTask) == [best, *others] * 2 + [best]
    counts = [(event.done, event.total) for event in events if isinstance(event, ConfirmProgress)]
    at_first, left = 3 * (1 + len(others)), 2 * (1 + len(others)) + 1
    assert counts == [(done, at_first if done < left else left) for done in range(1, left + 1)]


def test_a_candidate_behind_by_no_more_than_seeds_differ_is_not_dropped(rehearsal: Rehearsal) -> None:
    """On a million images every difference is clear, but for what the seeds do."""
    second = best_three(rehearsal)[1]
    seeds: list[int] = []

    def spreading(task: TrialTask) -> Iterator[EpochResult]:
        seeds.append(task.seed)
        for result in rehearse(task):
            luck = 0.03 if len(set(seeds)) % 2 == task.number % 2 else -0.03
            accuracy = result.validation_accuracy + luck - (0.02 if task.number == second else 0.0)
            yield replace(result, validation_accuracy=accuracy)

    trainer = Recorder()
    trainer_tasks = trainer.tasks

    def recorded(task: TrialTask) -> Iterator[EpochResult]:
        trainer_tasks.append(task)
        yield from spreading(task)

    race(rehearsal, recorded, num_validation=1_000_000)
    assert numbers(trainer_tasks, FreshSplitTask).count(second) == 3


def failing(trainer: Recorder, when: Callable[[TrialTask], bool]) -> Callable[[TrialTask], Iterator[EpochResult]]:
    """The trainer, but for the tasks that diverge."""

    def train(task: TrialTask) -> Iterator[EpochResult]:
        if when(task):
            trainer.tasks.append(task)
            raise Diverged("the training loss of epoch 1 is nan")
        yield from trainer(task)

    return train


def test_one_that_was_dropped_as_behind_cannot_win_by_two_seeds_when_the_leader_fails_later(
    rehearsal: Rehearsal,
) -> None:
    leader, *others = dict.fromkeys([*best_three(rehearsal), 0])
    trainer = Recorder(worse=tuple(others))
    seeds: list[int] = []

    def third_of_the_leader(task: TrialTask) -> bool:
        seeds.append(task.seed)
        return isinstance(task, FreshSplitTask) and task.number == leader and len(set(seeds)) == 3

    with pytest.raises(Opened, match=TEST_SET_OPENED):
        list(confirming(rehearsal, failing(trainer, third_of_the_leader)))
    raced = numbers(trainer.tasks, FreshSplitTask)
    assert all(raced.count(number) == 3 for number in (leader, *others))  # the others race on to their last seed
    assert leader not in numbers(trainer.tasks, AllImagesTask)


def test_a_final_training_that_diverges_lets_the_next_contender_win_and_it_is_said(
    confirmed: tuple[RunOptions, list[object]], tmp_path: Path
) -> None:
    """The seeds are fixed, so that the same confirmation would fail for ever."""
    options = replace(confirmed[0], studies=tmp_path / "studies", confirm="no")
    run(options)
    diverges = {}
    real = ImageTrainer.__call__

    def train(self: ImageTrainer, task: TrialTask) -> Iterator[EpochResult]:
        one = task.tasks[0] if isinstance(task, SeedGroup) else task  # where seeds together are faster
        if isinstance(one, AllImagesTask) and one.number and one.number == diverges.setdefault("winner", one.number):
            raise Diverged("the training loss of epoch 1 is nan")
        yield from real(self, task)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageTrainer, "__call__", train)
        *_, last = confirm_events(options.studies, load_summary(options).study, plan=ConfirmPlan(), workers=1)
    assert isinstance(last, Confirmed)
    assert last.confirmation.number != diverges["winner"]
    notes = " ".join(last.confirmation.notes)
    assert f"trial {diverges['winner']} won the race and could not be trained on all images" in notes
    assert "the training loss of epoch 1 is nan" in notes


def test_one_contender_with_one_seed_is_not_raced_as_nothing_would_be_learned_from_it(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path)
    rehearsal.run(1)
    trainer = Recorder()
    with pytest.raises(Opened, match=TEST_SET_OPENED):
        list(confirming(rehearsal, trainer, plan=ConfirmPlan(num_seeds=1)))
    assert [type(task) for task in trainer.tasks] == [AllImagesTask]
    trainer = Recorder()
    race(rehearsal, trainer, plan=ConfirmPlan(num_seeds=2))
    assert numbers(trainer.tasks, FreshSplitTask) == [0, 0]


def test_the_seeds_that_choose_the_winner_do_not_judge_it(rehearsal: Rehearsal) -> None:
    trainer = Recorder()
    with pytest.raises(Opened, match=TEST_SET_OPENED):
        list(confirming(rehearsal, trainer))
    chose = {task.seed for task in trainer.tasks if isinstance(task, FreshSplitTask)}
    judge = {task.seed for task in trainer.tasks if isinstance(task, AllImagesTask)}
    assert len(chose) == len(judge) == 3
    assert not chose & judge


def test_a_trial_that_was_stopped_early_is_compared_with_the_epochs_of_a_full_trial(rehearsal: Rehearsal) -> None:
    trials = {trial.number: trial for trial in rehearsal.record().trials()}
    whole = trials[best_three(rehearsal)[0]]
    stopped = replace(whole, outcome="pruned", curve={epoch: whole.curve[epoch] for epoch in (1, 2)}, seconds=4.0)
    never = replace(whole, outcome="failed", curve={}, seconds=0.0)
    assert contender_from(whole, epochs=EPOCHS).candidate.recipe.epochs == whole.best_epoch == EPOCHS - 1
    assert contender_from(stopped, epochs=EPOCHS).candidate.recipe.epochs == EPOCHS
    assert contender_from(stopped, epochs=EPOCHS).seconds == 2.0 * EPOCHS
    assert contender_from(never, epochs=EPOCHS).candidate.recipe.epochs == EPOCHS
    assert contender_from(never, epochs=EPOCHS, seconds_per_work=1e-6).seconds > 0


def test_a_link_in_the_place_of_its_own_folder_is_removed_and_not_followed(tmp_path: Path) -> None:
    rehearsal, other = Rehearsal(tmp_path / "studies"), tmp_path / "other"
    rehearsal.study_folder.mkdir(parents=True)
    rehearsal.run(3)
    other.mkdir()
    (other / "mine").write_text("mine")
    retrainings_folder(rehearsal.study_folder).symlink_to(other)
    with pytest.raises(Opened, match=TEST_SET_OPENED):
        list(confirming(rehearsal, Recorder()))
    assert [path.name for path in other.iterdir()] == ["mine"]
    assert not retrainings_folder(rehearsal.study_folder).is_symlink()


def test_an_opening_of_the_test_set_is_counted_before_it_is_opened(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path)
    rehearsal.run(3)
    for number in (1, 2):
        with pytest.raises(Opened, match=TEST_SET_OPENED):
            list(confirming(rehearsal, Recorder()))
        assert rehearsal.record().num_test_set_openings == number


def test_the_baseline_is_the_last_that_memory_sufficed_for(rehearsal: Rehearsal) -> None:
    first, second, third = rehearsal.record().trials()[:3]
    mark = {"origin": "space", "changes": []}
    assert first.baseline == mark
    assert baseline_trial([first, second, third]) == first
    too_large = replace(first, outcome="rejected", curve={})
    smaller = replace(second, baseline=mark)
    assert baseline_trial([too_large, smaller, third]) == smaller
    assert baseline_trial([too_large, replace(smaller, outcome="rejected"), third]) is None


def test_a_trial_that_is_not_marked_is_not_taken_for_the_baseline(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path)
    rehearsal.run(12)
    record = rehearsal.record()
    unmarked = [replace(trial, baseline=None) for trial in record.trials()]
    assert baseline_trial(unmarked) is None
    record.trials = lambda: unmarked
    events = confirming(rehearsal, Recorder(), record=record)
    assert next(events) == ConfirmStarted(tuple(best_three(rehearsal)), 3, ())
    events.close()


@pytest.mark.parametrize("is_fixed", [False, True])
def test_a_confirmation_begins_with_whether_the_validation_part_is_fixed(rehearsal: Rehearsal, is_fixed: bool) -> None:
    events = confirming(rehearsal, Recorder(), is_validation_fixed=is_fixed)
    started = next(events)
    assert isinstance(started, ConfirmStarted)
    assert started.is_validation_fixed == is_fixed
    events.close()


def test_a_baseline_that_repeats_a_trial_is_that_trial_and_keeps_what_it_is(rehearsal: Rehearsal) -> None:
    first, second, third = rehearsal.record().trials()[:3]
    mark = {"origin": "family", "changes": ["batch_size 32 instead of 64"]}
    same = replace(second, candidate=third.candidate, outcome="repeated", curve={}, baseline=mark)
    trials = [replace(first, baseline=None), third, same]
    assert baseline_trial(trials) == replace(third, baseline=mark)


def test_a_candidate_that_cannot_be_trained_again_is_out_and_the_others_go_on(rehearsal: Rehearsal) -> None:
    best = best_three(rehearsal)[0]
    trainer = Recorder(failing=(best,))
    events = race(rehearsal, trainer)
    said = [event.what for event in events if isinstance(event, ConfirmProgress)]
    assert any("no luck" in what for what in said)
    assert numbers(trainer.tasks, FreshSplitTask).count(best) == 1
    assert f"trial {best}, seed 2: no longer needed" in said
    assert best not in numbers(trainer.tasks, AllImagesTask)


@pytest.mark.parametrize("times", [1, 2])
def test_a_training_whose_process_dies_is_made_again_once(rehearsal: Rehearsal, times: int) -> None:
    best, *_ = best_three(rehearsal)
    trainer = Recorder()
    events = race(rehearsal, trainer, executor=Losing(trainer, best, times=times))
    said = [event.what for event in events if isinstance(event, ConfirmProgress)]
    assert sum("is trained again: lost: the process of runner 0 died" in what for what in said) == 1
    assert (best in numbers(trainer.tasks, AllImagesTask)) == (times == 1)
    assert any(re.match(rf"trial {best}, seed 1: [0-9.]+%", what) for what in said) == (times == 1)
    assert any("exit code -9" in what and "seed 1" in what for what in said) == (times == 2)


def test_without_a_first_configuration_that_trains_again_the_winner_goes_on_alone(rehearsal: Rehearsal) -> None:
    trainer = Recorder(failing=(0,))
    with pytest.raises(Opened, match=TEST_SET_OPENED):
        list(confirming(rehearsal, trainer))
    assert numbers(trainer.tasks, AllImagesTask) == best_three(rehearsal)[:1] * 3


def test_a_first_configuration_that_fails_on_all_images_does_not_end_the_confirmation(rehearsal: Rehearsal) -> None:
    trainer = Recorder()

    def train(task: TrialTask) -> Iterator[EpochResult]:
        if isinstance(task, AllImagesTask) and task.number == 0:
            raise RuntimeError("no luck")
        yield from trainer(task)

    with pytest.raises(Opened, match=TEST_SET_OPENED):
        list(confirming(rehearsal, train))
    assert numbers(trainer.tasks, AllImagesTask) == best_three(rehearsal)[:1] * 3


def concluded(
    winner: Contender,
    baseline: Contender | None,
    contenders: list[Contender],
    right: dict[int, torch.Tensor],
    **options: Any,
) -> Confirmation:
    """What `conclude` makes of which images are right, by trial and seed."""
    defaults: dict[str, Any] = {
        "epochs": EPOCHS,
        "splits": SPLITS,
        "seeds": list(range(len(right[winner.trial.number]))),
        "num_trials": 12,
        "num_openings": 1,
        "is_full": True,
        "seconds": 1.0,
        "notes": (),
    }
    scores = {number: [Score(correct_N, 0.1) for correct_N in correct_SN] for number, correct_SN in right.items()}
    return conclude(winner, baseline, contenders, scores, **{**defaults, **options})


SPLITS = Splits(200, 1_000)


def spreading(trial: TrialRecord, *accuracies: float) -> Contender:
    """A contender with these accuracies in the race."""
    contender = contender_from(trial, epochs=EPOCHS)
    contender.accuracies = dict(enumerate(accuracies))
    return contender


def test_a_winner_that_was_scored_alone_is_compared_with_nothing(rehearsal: Rehearsal) -> None:
    trials = {trial.number: trial for trial in rehearsal.record().trials()}
    winner, baseline = spreading(trials[best_three(rehearsal)[0]], 0.9, 0.91), spreading(trials[0])
    baseline.fail("seed 1: no luck")
    right = torch.rand(2, 1_000, generator=torch.Generator().manual_seed(0)) < 0.9
    found = concluded(winner, baseline, [winner, baseline], {winner.trial.number: right})
    assert (found.baseline_test_accuracy, found.difference, found.difference_interval) == (None, None, None)
    assert found.beats_baseline == "undecided"
    assert "trial 0, could not be trained again (seed 1: no luck)" in found.notes[0]
    spread = pool([spread_of_seeds(right.numpy()), spread_of([winner], SPLITS)])
    assert found.interval == accuracy_interval(right.numpy(), spread)


def test_one_final_seed_has_the_spread_that_the_race_has_seen(rehearsal: Rehearsal) -> None:
    trials = {trial.number: trial for trial in rehearsal.record().trials()}
    winner, baseline = spreading(trials[best_three(rehearsal)[0]], 0.8, 0.9, 0.85), spreading(trials[0], 0.8, 0.7, 0.85)
    generator = torch.Generator().manual_seed(0)
    right = {
        winner.trial.number: torch.rand(1, 100_000, generator=generator) < 0.9,
        0: torch.rand(1, 100_000, generator=generator) < 0.85,
    }
    found = concluded(winner, baseline, [winner, baseline], right)
    assert found.interval is not None
    assert found.interval[1] - found.interval[0] > 0.1  # that of the images alone is 0.004
    assert found.beats_baseline == "undecided"


def test_where_nothing_is_known_of_the_spread_of_seeds_there_is_no_interval_and_no_verdict(
    rehearsal: Rehearsal,
) -> None:
    trials = {trial.number: trial for trial in rehearsal.record().trials()}
    winner, baseline = spreading(trials[best_three(rehearsal)[0]], 0.9), spreading(trials[0], 0.5)
    right = {winner.trial.number: torch.ones(1, 100, dtype=torch.bool), 0: torch.zeros(1, 100, dtype=torch.bool)}
    found = concluded(winner, baseline, [winner, baseline], right)
    assert (found.interval, found.difference_interval) == (None, None)
    assert found.beats_baseline == "undecided"
    assert found.difference == 1.0
    assert "no interval and no verdict" in found.notes[0]


def test_a_baseline_that_is_always_one_class_does_not_narrow_the_interval(rehearsal: Rehearsal) -> None:
    trials = {trial.number: trial for trial in rehearsal.record().trials()}
    winner, baseline = spreading(trials[best_three(rehearsal)[0]], 0.8, 0.9, 0.85), spreading(trials[0], 0.5, 0.5, 0.5)
    generator = torch.Generator().manual_seed(0)
    own = torch.rand(3, 1_000, generator=generator) < torch.tensor([[0.8], [0.9], [0.85]])
    constant = (torch.arange(1_000) % 2 == 0).expand(3, -1)
    with_it = concluded(winner, baseline, [winner, baseline], {winner.trial.number: own, 0: constant})
    without = concluded(winner, None, [winner], {winner.trial.number: own})
    assert with_it.interval == without.interval


def test_the_test_set_is_opened_only_after_the_last_choice(rehearsal: Rehearsal) -> None:
    trainer = Recorder()
    with pytest.raises(Opened, match=TEST_SET_OPENED):
        list(confirming(rehearsal, trainer))
    assert len(numbers(trainer.tasks, AllImagesTask)) == 6


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
        amounts.append(len(numbers(trainer.tasks, FreshSplitTask)))
        assert bool(events[0].notes) == (seconds != 1e9)
    assert amounts == sorted(amounts, reverse=True)
    assert amounts[0] > amounts[1] > amounts[-1] >= 1
    assert "--full" in events[0].notes[0]
    assert "the minimum, although it takes longer than a third of the run" in events[0].notes[0]


def test_a_confirmation_takes_what_is_left_of_the_budget_and_without_one_a_third_of_the_run(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path)
    ticks = iter(range(10_000))
    rehearsal.run(4, clock=lambda: float(next(ticks)))
    record = rehearsal.record()
    third = limit_to_time(ConfirmPlan(), record, 1)
    assert third.seconds == pytest.approx(search_seconds(record.trials(), 1) / 2)
    assert third.seconds > 0
    for left, expected in ((2 * third.seconds, 2 * third.seconds), (third.seconds / 2, third.seconds / 2), (-1.0, 0.0)):
        limited = limit_to_time(ConfirmPlan(), record, 1, seconds_left=left)
        assert limited == ConfirmPlan(
            seconds=expected, within="what is left of the budget", max_epoch_factor=MAX_EPOCH_FACTOR
        )


def test_seeds_are_kept_before_candidates_but_for_a_second_one(rehearsal: Rehearsal) -> None:
    trials = {trial.number: trial for trial in rehearsal.record().trials()}
    ranked = [replace(contender_from(trials[number], epochs=EPOCHS), seconds=1.0) for number in best_three(rehearsal)]
    baseline = replace(contender_from(trials[0], epochs=EPOCHS), seconds=1.0)
    tried = [
        affordable(ranked, baseline, ConfirmPlan(seconds=seconds / 10), num_runners=1)[:2]
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
    generator = torch.Generator().manual_seed(0)
    contenders = [
        spreading(trials[number], *(0.9 + 0.01 * torch.randn(2, generator=generator)).tolist())
        for number in {*best_three(rehearsal), 0}
    ]
    winner, baseline = contenders[0], contenders[-1]
    right = {one.trial.number: torch.rand(2, 10_000, generator=generator) < 0.95 for one in (winner, baseline)}
    found = concluded(winner, baseline, contenders, right)
    own, other = (right[one.trial.number].numpy() for one in (winner, baseline))
    spread = pool([spread_of_seeds(own), spread_of_seeds(other), spread_of(contenders, SPLITS)])
    assert found.interval == accuracy_interval(own, spread)
    assert found.difference_interval == difference_interval(own, other, spread)
    assert found.interval != accuracy_interval(own, spread_of_seeds(own))


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


@pytest.mark.slow
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
    assert "although it takes longer than what is left of the budget" in started.notes[0]
    first = load_summary(options).confirmed
    assert first is not None
    assert not first.is_full
    in_full = replace(options, confirm="in full")
    assert isinstance(list(run_events(in_full))[-1], Confirmed)
    second = load_summary(options).confirmed
    assert second is not None
    assert second.is_full
    assert len(second.seeds) == 3
    for again in (in_full, replace(options, confirm="in time")):
        assert not any(isinstance(event, ConfirmStarted) for event in run_events(again))


def test_a_confirmation_that_ends_after_its_file_is_written_leaves_no_other_verdict_beside_it(
    confirmed: tuple[RunOptions, list[object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(confirmed[0], studies=tmp_path / "studies", trials=1)
    run(options)
    save_confirmed = StudyRecord.save_confirmed

    def killed(record: StudyRecord, found: Any) -> None:
        if found is not None:
            raise KeyboardInterrupt
        save_confirmed(record, found)

    with monkeypatch.context() as patch:
        patch.setattr(StudyRecord, "save_confirmed", killed)
        with pytest.raises(KeyboardInterrupt):
            list(confirm_events(options.studies, None, plan=ConfirmPlan(1, 1), workers=1))
    summary = load_summary(options)
    assert (summary.confirmed, summary.delivered) == (None, None)
    again = list(run_events(options))[-1]
    assert isinstance(again, Confirmed)
    assert again.confirmation.test_set_openings == 3


def test_images_that_have_changed_since_are_refused(confirmed: tuple[RunOptions, list[object]], tmp_path: Path) -> None:
    options = replace(confirmed[0], studies=tmp_path / "studies", trials=1, confirm="no")
    summary = run(options)
    record = load_study(existing_storage(options.studies), summary.study)
    record.save_data_spec(replace(options.data_spec, image_size=(6, 6)))
    with pytest.raises(StudyError, match="are not those"):
        list(confirm_events(options.studies, summary.study, plan=ConfirmPlan(), workers=1))
