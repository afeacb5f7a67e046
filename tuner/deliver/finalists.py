"""Part (b) of a confirmation: train the winner of the race and the baseline on all images, for the test set."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.deliver.contenders import Contender, Splits
from tuner.deliver.race import race
from tuner.deliver.retraining import ConfirmProgress, ConfirmStep, group_seeds, is_lost, train_all, why_again
from tuner.errors import StudyError
from tuner.search.events import TrialPreparing
from tuner.search.executors import Executor
from tuner.search.objective import rank_key
from tuner.search.study_files import retrained_path
from tuner.search.tasks import AllImagesTask, SeedGroup, TrainingEnded
from tuner.training.candidate import Candidate
from tuner.training.seeds import derive_seed


@dataclass(frozen=True)
class FinalTraining:
    """How the winner and the baseline are trained at the end.

    epoch_factor: how many times as many epochs as in the race, at least 1; the schedule spans them.
    """

    num_seeds: int
    epoch_factor: float = 1.0

    def candidate_of(self, one: Contender) -> Candidate:
        """The contender's candidate with the epochs of the final training."""
        recipe = one.candidate.recipe
        return replace(one.candidate, recipe=replace(recipe, epochs=int(recipe.epochs * self.epoch_factor)))


@dataclass(frozen=True)
class Finalists:
    """The winner of the race and the baseline, after training on all images.

    baseline: None if there is none, or if it cannot be trained again. training: how they were trained, with the
    number of seeds whose weights were kept. notes: about contenders that won the race and then could not be trained on
    all images.
    """

    winner: Contender
    baseline: Contender | None
    training: FinalTraining
    notes: tuple[str, ...]

    @property
    def each(self) -> list[Contender]:
        """The winner, and the baseline if it is another trial."""
        return [self.winner] if self.baseline in (None, self.winner) else [self.winner, self.baseline]

    @property
    def epochs(self) -> int:
        """Number of epochs for which the winner was trained on all images."""
        return self.training.candidate_of(self.winner).recipe.epochs


def decide(
    contenders: Sequence[Contender],
    baseline: Contender | None,
    executor: Executor,
    folder: Path,
    *,
    num_seeds: int,
    plan_final: Callable[[Sequence[Contender]], FinalTraining],
    seed: int,
    splits: Splits,
    together_bytes: float = 0.0,
) -> Generator[ConfirmStep, None, Finalists]:
    """Race the contenders, then train the winner and the baseline on all images and store their weights.

    The best mean of the race wins, among the contenders that were not dropped. A single contender with a single seed is
    not raced, because nothing would be learned from it. A winner that cannot be trained on all images is dropped, and
    the next one takes its place. plan_final: called with the finalists before they are trained; a later
    winner never gets more seeds, and always the same factor of epochs, so that the baseline stays comparable. Raises
    StudyError if no contender is left.
    """
    notes: list[str] = []
    trained: set[tuple[int, int]] = set()
    training: FinalTraining | None = None
    while True:
        if is_raced(contenders, num_seeds):
            yield from race(
                contenders, executor, num_seeds=num_seeds, seed=seed, splits=splits, together_bytes=together_bytes
            )
        winner = min(
            (one for one in contenders if not one.dropped),
            key=lambda one: rank_key(one.mean, one.trial.number),
            default=None,
        )
        if winner is None:
            reasons = "; ".join(f"trial {one.trial.number}: {one.dropped}" for one in contenders)
            raise StudyError(f"no candidate could be trained again, so there is no winner ({reasons})")
        if baseline is not None and baseline.has_failed:
            baseline = None
        finalists = [winner] if baseline in (None, winner) else [winner, baseline]
        planned = plan_final(finalists)
        training = (
            planned if training is None else replace(training, num_seeds=min(training.num_seeds, planned.num_seeds))
        )
        yield from train_finalists(
            finalists, executor, folder, trained, training=training, seed=seed, together_bytes=together_bytes
        )
        if not winner.has_failed:
            still = None if baseline is None or baseline.has_failed else baseline
            return Finalists(winner, still, training, (*notes, *_notes_on_epochs(training, winner, still)))
        notes.append(
            f"trial {winner.trial.number} won the race and could not be trained on all images ({winner.dropped}); "
            "the next best took its place"
        )


def is_raced(contenders: Sequence[Contender], num_seeds: int) -> bool:
    """Whether a race would choose between contenders, or show how much seeds differ."""
    return len(contenders) > 1 or num_seeds > 1


def train_finalists(
    finalists: Sequence[Contender],
    executor: Executor,
    folder: Path,
    trained: set[tuple[int, int]],
    *,
    training: FinalTraining,
    seed: int,
    together_bytes: float = 0.0,
) -> Iterator[ConfirmStep]:
    """Part (b): train on train and validation together with separate seeds, and store the weights in the folder.

    trained: pairs of trial number and seed number whose weights already exist; new pairs are added. A finalist that
    cannot be trained is dropped and loses its accuracies. The longest training starts first.
    """
    by_number = {one.trial.number: one for one in finalists}
    numbers = {final_seed(seed, number): number for number in range(training.num_seeds)}
    tasks = [
        AllImagesTask(
            one.trial.number,
            training.candidate_of(one),
            final_seed(seed, number),
            output=retrained_path(folder, one.trial.number, seed_number=number),
        )
        for number in range(training.num_seeds)
        for one in sorted(finalists, key=lambda one: one.seconds, reverse=True)
        if (one.trial.number, number) not in trained
    ]
    done = 0
    for step in train_all(group_seeds(tasks, executor.num_runners, together_bytes), executor):
        if isinstance(step, TrialPreparing):
            yield step
            continue
        task, end = step
        if isinstance(task, SeedGroup) or is_lost(end):
            yield ConfirmProgress(why_again(task, end), done, len(tasks))
            continue
        done += 1
        one = by_number[task.number]
        if isinstance(end, TrainingEnded):
            one.fail(f"on all images, seed {numbers[task.seed] + 1}: {end.kind} {end.reason}".rstrip())
            failed = f"trial {task.number} could not be trained on all images: {end.kind} {end.reason}"
            yield ConfirmProgress(failed.rstrip(), done, len(tasks))
            continue
        trained.add((task.number, numbers[task.seed]))
        yield ConfirmProgress(f"trial {task.number} on train and validation together", done, len(tasks))


def _notes_on_epochs(training: FinalTraining, winner: Contender, baseline: Contender | None) -> Iterator[str]:
    """Say that the final training was longer than in the race."""
    of_winner = training.candidate_of(winner).recipe.epochs
    if of_winner == winner.candidate.recipe.epochs:
        return
    of_baseline = ""
    if baseline not in (None, winner):
        of_baseline = f", and the baseline for {training.candidate_of(baseline).recipe.epochs}"
    yield (
        f"the time left was used to train longer at the end: the winner for {of_winner} epochs instead of "
        f"{winner.candidate.recipe.epochs}{of_baseline}"
    )


def final_seed(seed: int, number: int) -> int:
    """Random seed for training on all images with the seed of this number.

    It is not one of the race's seeds, whose luck chose the winner.
    """
    return derive_seed(seed, "confirm final training", number)
