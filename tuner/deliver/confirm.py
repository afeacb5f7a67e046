"""Confirm a study: retrain the best candidates on fresh splits, and score the winner on the sealed test set, once.

The best of many noisy validation scores is partly luck. So the top candidates of a search and its baseline are trained
again. (a) Each seed gets a fresh split into train and validation, and trains for the number of epochs that was best in
the search. The last epoch is scored, and the best mean wins. (b) The winner and the baseline are trained with other
seeds on train and validation together. Only then is the test set opened.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tuner.data.dataset import ImageDataset
from tuner.data.image_rule import is_decoded_for
from tuner.data.images import Preprocessing
from tuner.deliver.conclusion import conclude
from tuner.deliver.confirm_plan import NUM_CANDIDATES, NUM_SEEDS, ConfirmPlan, affordable, plan_final
from tuner.deliver.contenders import Splits, contender_from, work_of
from tuner.deliver.finalists import decide, final_seed
from tuner.deliver.retraining import ConfirmStep
from tuner.deliver.scoring import on_all_cores, score_checkpoint, score_classes_on
from tuner.deliver.sealed_set import count_shared_images
from tuner.errors import StudyError, reason_of
from tuner.search.confirmation import Confirmation
from tuner.search.executors import Executor
from tuner.search.record import StudyRecord
from tuner.search.study_files import confirmed_path, retrained_path, retrainings_folder
from tuner.search.summary import rank_complete
from tuner.search.trial_record import TrialRecord
from tuner.temporary import remove
from tuner.training.checkpoint import load_checkpoint, save_checkpoint


@dataclass(frozen=True)
class ConfirmStarted:
    """The confirmation begins with these trials and number of seeds. `notes` say what is skipped to save time.

    is_validation_fixed: whether every seed has the data set's own validation part, so that no fresh splits are drawn.
    """

    numbers: tuple[int, ...]
    num_seeds: int
    notes: tuple[str, ...]
    is_validation_fixed: bool = False


@dataclass(frozen=True)
class Confirmed:
    """The confirmation is stored in the study, and the winner's checkpoint is at its final path."""

    confirmation: Confirmation
    checkpoint: Path


ConfirmEvent = ConfirmStarted | ConfirmStep | Confirmed


def confirm(
    record: StudyRecord,
    plan: ConfirmPlan,
    executor: Executor,
    *,
    folder: Path,
    seed: int,
    epochs: int,
    splits: Splits,
    load_test_set: Callable[[], ImageDataset],
    load_test_set_for: Callable[[Preprocessing], ImageDataset] | None = None,
    development: ImageDataset,
    device: torch.device,
    memory_bytes: int,
    together_bytes: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[ConfirmEvent]:
    """Confirm a study's winner and yield events. Raises StudyError if there is nothing to confirm.

    epochs: number of epochs of a full trial. load_test_set: called once, after the last choice; the opening is counted
    before the call. load_test_set_for: the same images, decoded for a backbone; None if all networks have the images
    of the data set.
    development: the images of train and validation; a note reports test images that are among them.
    memory_bytes: memory for images. together_bytes: memory for a training step of seeds that train together; 0 if no
    seeds may train together.
    """
    started = clock()
    trials = record.trials()
    refuse_without_winner(record, trials)
    ranked = rank_complete(trials)
    num_images = splits.num_images
    pace = _seconds_per_work(trials, num_images)
    known = baseline_trial(trials)
    if known is not None:
        ranked = [known if trial.number == known.number else trial for trial in ranked]
    baseline = (
        None if known is None else contender_from(known, epochs=epochs, seconds_per_work=pace, num_images=num_images)
    )
    retrained = [contender_from(trial, epochs=epochs) for trial in ranked[: plan.num_candidates]]
    num_candidates, num_seeds, skipped = affordable(retrained, baseline, plan, num_runners=executor.num_runners)
    contenders = retrained[:num_candidates]
    if baseline is not None:
        baseline = next((one for one in contenders if one.trial.number == baseline.trial.number), baseline)
        contenders += [] if baseline in contenders else [baseline]
    numbers = tuple(one.trial.number for one in contenders)
    yield ConfirmStarted(numbers, num_seeds, tuple(skipped), is_validation_fixed=splits.is_fixed)

    temporary = retrainings_folder(folder)
    try:
        remove(temporary)  # a link too, which would lead out of the study's folder
    except OSError as error:
        raise StudyError(f"{temporary}: cannot be removed: {reason_of(error)}") from error
    try:
        finalists = yield from decide(
            contenders,
            baseline,
            executor,
            folder,
            num_seeds=num_seeds,
            plan_final=lambda finalists: plan_final(
                finalists, plan, num_seeds, spent=clock() - started, num_runners=executor.num_runners
            ),
            seed=seed,
            splits=splits,
            together_bytes=together_bytes,
        )
        winner, num_final = finalists.winner, finalists.training.num_seeds
        if num_final < num_seeds:
            why = "for more epochs of each" if finalists.training.epoch_factor > 1 else "because time ran out"
            skipped.append(f"{num_final} of {num_seeds} seeds were scored on the test set, {why}")

        num_openings = record.count_test_set_opening()
        test_set = load_test_set()
        scores = {}
        for one in finalists.each:
            paths = [retrained_path(folder, one.trial.number, seed_number=number) for number in range(num_final)]
            checkpoints = [load_checkpoint(path) for path in paths]
            images = _decoded_for(checkpoints[0].preprocessing, test_set, load_test_set_for)
            with on_all_cores():
                scores[one.trial.number] = [
                    score_checkpoint(checkpoint, images, device=device, memory_bytes=memory_bytes)
                    for checkpoint in checkpoints
                ]
        num_shared = count_shared_images(test_set, development)
        confirmation = conclude(
            winner,
            baseline,
            contenders,
            scores,
            epochs=finalists.epochs,
            splits=splits,
            seeds=[final_seed(seed, number) for number in range(num_final)],
            num_trials=sum(trial.counts for trial in trials),
            num_openings=num_openings,
            is_full=not skipped and plan.num_candidates >= NUM_CANDIDATES and plan.num_seeds >= NUM_SEEDS,
            seconds=clock() - started,
            notes=[
                *skipped,
                *finalists.notes,
                *test_set.repairs,
                *_notes_on_shared_images(num_shared, num_images=len(test_set.labels_N)),
            ],
            num_shared=num_shared,
            class_scores=score_classes_on(test_set, scores[winner.trial.number], development=development),
        )
        delivered = scores[winner.trial.number][0]
        checkpoint = load_checkpoint(retrained_path(folder, winner.trial.number, seed_number=0))
        own = {"test_accuracy": delivered.accuracy, "test_loss": delivered.loss}
        origin = {**checkpoint.origin, "test_digest": test_set.digest}
        if record.confirmed is not None:
            record.save_confirmed(None)  # the record never describes another file, also if the process ends here
        save_checkpoint(replace(checkpoint, scores=own, origin=origin), confirmed_path(folder))
        record.save_confirmed(confirmation)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    yield Confirmed(confirmation, confirmed_path(folder))


def _decoded_for(
    preprocessing: Preprocessing, test_set: ImageDataset, load: Callable[[Preprocessing], ImageDataset] | None
) -> ImageDataset:
    """Return the test set as a network expects it; `load` decodes it if the data set's own images are others."""
    if load is None or is_decoded_for(test_set, preprocessing):
        return test_set
    return load(preprocessing)


def refuse_without_winner(record: StudyRecord, trials: Sequence[TrialRecord]) -> None:
    """Raise StudyError if a study has no complete trial, so that there is nothing to confirm."""
    if not rank_complete(trials):
        raise StudyError(
            f"study {record.name!r} has no complete trial, so no winner to confirm: resume it with `tuner run`"
        )


def trials_to_retrain(trials: Sequence[TrialRecord], plan: ConfirmPlan) -> list[TrialRecord]:
    """Return the trials that a confirmation may retrain: the best ones, and the baseline if there is one."""
    baseline = baseline_trial(trials)
    return [*rank_complete(trials)[: plan.num_candidates], *([] if baseline is None else [baseline])]


def baseline_trial(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the trial that the winner is compared with; None if it did not fit into memory or was never tried.

    This is the last trial that is marked as a baseline, since a smaller baseline follows each one that does not fit
    into memory.
    """
    marked = [trial for trial in trials if trial.baseline is not None]
    if not marked:
        return None
    found = marked[-1]
    if found.outcome == "repeated":
        same = [one for one in trials if one.candidate.fingerprint == found.candidate.fingerprint and one.curve]
        return replace(same[0], baseline=found.baseline) if same else found
    return None if found.outcome == "rejected" else found


def _notes_on_shared_images(num_shared: int, *, num_images: int) -> list[str]:
    if not num_shared:
        return []
    return [
        f"{num_shared:,} of the {num_images:,} test images are also among the training and validation "
        "images, pixel for pixel, so the test accuracies are optimistic"
    ]


def _seconds_per_work(trials: Sequence[TrialRecord], num_images: int) -> float:
    """Seconds per unit of `Cost.work`, over everything that the search has trained."""
    trained = [trial for trial in trials if trial.curve]
    return sum(trial.seconds for trial in trained) / sum(
        work_of(trial, num_images) * len(trial.curve) for trial in trained
    )
