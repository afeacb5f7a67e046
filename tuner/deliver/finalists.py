"""Part (b) of a confirmation: train the winner of the race and the baseline on all images, for the test set."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.deliver.contenders import Contender, Splits
from tuner.deliver.race import race
from tuner.deliver.retraining import ConfirmProgress, group_seeds, is_lost, train_all, why_again
from tuner.errors import StudyError
from tuner.search.executors import Executor
from tuner.search.objective import rank_key
from tuner.search.study_files import retrained_path
from tuner.search.tasks import AllImagesTask, SeedGroup, TrainingEnded
from tuner.training.seeds import derive_seed


@dataclass(frozen=True)
class Finalists:
    """The winner of the race and the baseline, after training on all images.

    baseline: None if there is none, or if it cannot be trained again. num_seeds: number of seeds whose weights were
    kept, for the winner and the baseline. notes: about contenders that won the race and then could not be trained on
    all images.
    """

    winner: Contender
    baseline: Contender | None
    num_seeds: int
    notes: tuple[str, ...]

    @property
    def each(self) -> list[Contender]:
        """The winner, and the baseline if it is another trial."""
        return [self.winner] if self.baseline in (None, self.winner) else [self.winner, self.baseline]


def decide(
    contenders: Sequence[Contender],
    baseline: Contender | None,
    executor: Executor,
    folder: Path,
    *,
    num_seeds: int,
    num_final: Callable[[Sequence[Contender]], int],
    seed: int,
    splits: Splits,
    together_bytes: float = 0.0,
) -> Generator[ConfirmProgress, None, Finalists]:
    """Race the contenders, then train the winner and the baseline on all images and store their weights.

    The best mean of the race wins, among the contenders that were not dropped. A single contender with a single seed is
    not raced, because nothing would be learned from it. A winner that cannot be trained on all images is dropped, and
    the next one takes its place. num_final: number of seeds for training on all images. Raises StudyError if no
    contender is left.
    """
    notes: list[str] = []
    trained: set[tuple[int, int]] = set()
    most = num_seeds
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
        most = min(most, num_final(finalists))
        yield from train_finalists(
            finalists, executor, folder, trained, num_seeds=most, seed=seed, together_bytes=together_bytes
        )
        if not winner.has_failed:
            still = None if baseline is None or baseline.has_failed else baseline
            return Finalists(winner, still, most, tuple(notes))
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
    num_seeds: int,
    seed: int,
    together_bytes: float = 0.0,
) -> Iterator[ConfirmProgress]:
    """Part (b): train on train and validation together with separate seeds, and store the weights in the folder.

    trained: pairs of trial number and seed number whose weights already exist; new pairs are added. A finalist that
    cannot be trained is dropped and loses its accuracies.
    """
    by_number = {one.trial.number: one for one in finalists}
    numbers = {final_seed(seed, number): number for number in range(num_seeds)}
    tasks = [
        AllImagesTask(
            one.trial.number,
            one.candidate,
            final_seed(seed, number),
            output=retrained_path(folder, one.trial.number, seed_number=number),
        )
        for number in range(num_seeds)
        for one in finalists
        if (one.trial.number, number) not in trained
    ]
    done = 0
    for task, end in train_all(group_seeds(tasks, executor.num_runners, together_bytes), executor):
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


def final_seed(seed: int, number: int) -> int:
    """Random seed for training on all images with the seed of this number.

    It is not one of the race's seeds, whose luck chose the winner.
    """
    return derive_seed(seed, "confirm final training", number)
