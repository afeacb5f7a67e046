"""What fits into the time of a confirmation: candidates, seeds and the epochs of the final training."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.deliver.rehearsed import TEST_SET_OPENED, Opened, confirming
from tests.deliver.test_confirm import Recorder, best_three
from tests.search.rehearsal import EPOCHS, Rehearsal
from tuner.deliver.confirm_plan import MARGIN, MORE_IMAGES, SEEDS_KEEP, ConfirmPlan, affordable, makespan, plan_final
from tuner.deliver.contenders import Contender, contender_from
from tuner.deliver.finalists import FinalTraining
from tuner.search.tasks import AllImagesTask, FreshSplitTask


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    """A study of twelve trials whose best is not the first configuration."""
    rehearsal = Rehearsal(tmp_path_factory.mktemp("rehearsal"))
    rehearsal.run(12)
    return rehearsal


@pytest.fixture(scope="module")
def both(rehearsal: Rehearsal) -> list[Contender]:
    """The best trial and the baseline."""
    trials = {trial.number: trial for trial in rehearsal.record().trials()}
    return [contender_from(trials[number], epochs=EPOCHS) for number in (best_three(rehearsal)[0], 0)]


def finalists(both: list[Contender], *seconds: float) -> list[Contender]:
    """Contenders whose training takes these seconds, without the final training's additional images."""
    return [replace(one, seconds=time / MORE_IMAGES) for one, time in zip(both, seconds, strict=False)]


LONGER = ConfirmPlan(seconds=100 / MARGIN, max_epoch_factor=8.0)


@pytest.mark.parametrize(
    ("seconds", "num_runners", "expected"),
    [
        # Equal ones share two runners; a second seed of both would halve the epochs.
        ((25.0, 25.0), 2, FinalTraining(1, 4.0)),
        # A second seed of the slow one runs where the fast one left a runner idle: 30 s instead of 25 s.
        ((25.0, 5.0), 2, FinalTraining(2, 100 / 30)),
        # Three of 20 s end together on three runners, beside three of 1 s after them.
        ((20.0, 1.0), 3, FinalTraining(3, 100 / 21)),
        # The winner is the baseline: the second runner trains another seed at no cost, and a third one would wait.
        ((25.0,), 2, FinalTraining(2, 4.0)),
        # Never more epochs than the limit; then there is time for every seed.
        ((1.0, 1.0), 2, FinalTraining(3, 8.0)),
        # Not even one seed of the race's epochs fits.
        ((300.0, 20.0), 2, FinalTraining(1, 1.0)),
    ],
)
def test_the_final_training_fills_the_time_with_epochs_and_idle_runners_with_seeds(
    both: list[Contender], seconds: tuple[float, ...], num_runners: int, expected: FinalTraining
) -> None:
    planned = plan_final(finalists(both, *seconds), LONGER, 3, spent=0.0, num_runners=num_runners)
    assert planned.num_seeds == expected.num_seeds
    assert planned.epoch_factor == pytest.approx(expected.epoch_factor)


def test_time_that_is_spent_already_is_not_planned_again(both: list[Contender]) -> None:
    half = plan_final(finalists(both, 25.0, 25.0), LONGER, 3, spent=LONGER.seconds / 2, num_runners=2)
    assert half.epoch_factor == pytest.approx(2.0)


def test_without_a_longer_training_the_epochs_stay_those_of_the_race(both: list[Contender]) -> None:
    for seconds, num_seeds in ((10.0, 1), (40.0, 2), (1e9, 3)):
        planned = plan_final(finalists(both, 25.0, 5.0), ConfirmPlan(seconds=seconds), 3, spent=0.0, num_runners=2)
        assert planned == FinalTraining(num_seeds, 1.0)


@given(
    st.lists(st.floats(0.1, 100.0), min_size=1, max_size=2),
    st.floats(0.0, 1_000.0),
    st.integers(1, 5),
    st.integers(1, 4),
)
def test_a_longer_final_training_keeps_within_the_time_and_each_seed_keeps_its_share_of_the_epochs(
    both: list[Contender], seconds: list[float], limit: float, num_seeds: int, num_runners: int
) -> None:
    plan = ConfirmPlan(seconds=limit, max_epoch_factor=8.0)
    contenders = finalists(both, *seconds)
    planned = plan_final(contenders, plan, num_seeds, spent=0.0, num_runners=num_runners)
    alone = plan_final(contenders, plan, 1, spent=0.0, num_runners=num_runners)
    assert 1 <= planned.num_seeds <= num_seeds
    assert 1.0 <= planned.epoch_factor <= 8.0
    needed = makespan([planned.epoch_factor * one for one in seconds for _ in range(planned.num_seeds)], num_runners)
    assert needed <= limit * (1 + 1e-9) or planned == FinalTraining(1, 1.0)
    assert planned.epoch_factor >= SEEDS_KEEP * alone.epoch_factor * (1 - 1e-9)


def test_the_longest_training_is_started_first_on_the_next_free_runner() -> None:
    assert makespan([1.0, 1.0, 2.0], 2) == 2.0
    assert makespan([3.0, 3.0, 2.0, 2.0, 2.0], 2) == 7.0
    assert makespan([5.0], 4) == 5.0
    assert makespan([], 2) == 0.0


def test_a_race_leaves_time_for_a_longer_final_training(rehearsal: Rehearsal) -> None:
    trials = {trial.number: trial for trial in rehearsal.record().trials()}
    alike = [replace(contender_from(trials[number], epochs=EPOCHS), seconds=1.0) for number in best_three(rehearsal)]
    one = replace(contender_from(trials[0], epochs=EPOCHS), seconds=1.0)
    whole, longer = ConfirmPlan(seconds=20.0), ConfirmPlan(seconds=20.0, max_epoch_factor=8.0)
    most, fewer = (affordable(alike, one, plan, num_runners=1)[:2] for plan in (whole, longer))
    assert most > fewer


def test_the_winner_and_the_baseline_train_for_the_same_factor_of_their_epochs_and_it_is_said(
    rehearsal: Rehearsal,
) -> None:
    trainer = Recorder()
    with pytest.raises(Opened, match=TEST_SET_OPENED):
        list(confirming(rehearsal, trainer, plan=ConfirmPlan(max_epoch_factor=3.0, seconds=1e9)))
    raced = {task.number: task.candidate for task in trainer.tasks if isinstance(task, FreshSplitTask)}
    final = {task.number: task.candidate for task in trainer.tasks if isinstance(task, AllImagesTask)}
    assert len(final) == 2
    for number, candidate in final.items():
        assert candidate.recipe.epochs == 3 * raced[number].recipe.epochs
        assert replace(candidate, recipe=replace(candidate.recipe, epochs=0)) == replace(
            raced[number], recipe=replace(raced[number].recipe, epochs=0)
        )
