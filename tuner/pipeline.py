"""Search and confirm, from options to a finished study: the functions behind `tuner run` and `tuner confirm`."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from pathlib import Path

from tuner.data.data_checks import refuse_meaningless
from tuner.data.dataset import DataSpec, Report
from tuner.data.sealed import FixedParts, SealedPart, check_parts, fix_parts, fix_parts_for
from tuner.data.splits import split_development
from tuner.data.training_data import memory_for_images, stream_limit
from tuner.deliver.confirm import ConfirmEvent, confirm, refuse_without_winner, trials_to_retrain
from tuner.deliver.confirm_plan import TIME_SHARE_OF_BUDGET, ConfirmPlan, limit_to_time
from tuner.deliver.contenders import Splits
from tuner.deliver.sealed_set import fix_test_set, open_test_set, refuse_other_test_set
from tuner.hardware import devices_for
from tuner.options import (
    RunOptions,
    check_options,
    default_epochs,
    options_of_study,
    wanted_trials,
    weights_from,
)
from tuner.search.coordinator import search
from tuner.search.devices import refuse_other_engine
from tuner.search.events import DataReady, SearchEvent
from tuner.search.executors import Executor, local_executor
from tuner.search.folder_owner import claim_folder, refuse_other_studys_folder
from tuner.search.locks import hold, hold_record
from tuner.search.memory_limit import check_batch_sizes
from tuner.search.older_studies import refuse_older_version
from tuner.search.processes import end_if_unguarded, import_ahead
from tuner.search.ranking_limit import RankingLimit
from tuner.search.record import StudyRecord
from tuner.search.search_plan import SearchPlan
from tuner.search.settings import (
    StudySettings,
    has_another_version_of_its_space,
    space_note,
    stored_space,
    study_settings,
)
from tuner.search.storage import Storage, open_storage
from tuner.search.stored_options import find_named, save_allowed, save_wanted_trials
from tuner.search.study_backbones import decode_for_backbones, rank_backbones, restore_weights_of
from tuner.search.study_data import device_of, devices_of_run, refuse_other_device, refuse_other_images
from tuner.search.study_location import (
    check_study_name,
    existing_storage,
    has_storage,
    make_studies_folder,
    storage_url,
)
from tuner.search.study_lookup import create_study, find_study, load_study
from tuner.search.study_report import data_ready
from tuner.search.study_runners import StudyRunners, input_spec_of, place_runners, prepare_runners
from tuner.search.study_space import space_of_run
from tuner.search.summary import StudySummary, best_trial, summarise
from tuner.search.training_cost import BackboneImages
from tuner.search.trial_record import TrialRecord
from tuner.space.automatic_flip import decide_flip
from tuner.space.first_sizes import refuse_large_first
from tuner.space.toml_file import bundled_spaces, load_space
from tuner.training.caller_settings import generates_with_own_settings
from tuner.training.engine_option import parse_forced, refuse_without_effect

RunEvent = DataReady | SearchEvent | ConfirmEvent
ExecutorFactory = Callable[..., AbstractContextManager[Executor]]
"""Function that makes the executor for a study's trainers, one runner for each, with local_executor's arguments."""


@generates_with_own_settings
def run_events(
    options: RunOptions, *, report: Report | None = None, make_executor: ExecutorFactory = local_executor
) -> Generator[RunEvent]:
    """Start or resume a study, confirm its winner, and yield events; closing the iterator leaves a study to resume.

    `report` is called with the progress of downloads and decoding. make_executor: makes the executor that trains. A
    single local runner on a CPU trains in the calling process, with torch's default settings; the caller's own settings
    are restored whenever an event is yielded. Raises TunerError for anything that the user can fix; errors that need no
    measurement are raised before this machine is measured.
    """
    started = time.monotonic()
    end_if_unguarded()
    check_options(options)
    if options.workers != 1:
        import_ahead()
    name = options.study_name
    check_study_name(name)
    space = None if options.given_space is None else load_space(options.given_space)
    make_studies_folder(options.studies)
    url = storage_url(options.studies, options.storage)
    storage = open_storage(url) if has_storage(options.studies, options.storage) else None
    earlier = None if storage is None else find_named(storage, name)
    if earlier is not None:
        refuse_older_version(earlier)
        _ = earlier.engine, earlier.confirmed  # a newer version may have stored them: refuse before anything is written
    wanted, notes = options_of_study(options, earlier)
    is_bundled = _has_bundled_space(options, earlier)
    if space is None and earlier is not None:
        space = load_space(wanted.space) if is_bundled else stored_space(earlier.settings)
    device, devices = devices_of_run(options.device, earlier)
    forced = parse_forced(options.engine, device)
    parts = fix_parts(wanted.data_spec, report=report)
    dataset = parts.development
    checks = check_parts(parts)
    stored = None if earlier is None else stored_space(earlier.settings)
    space, space_notes = space_of_run(
        space,
        stored,
        input_spec_of(dataset),
        weights_from(options.weights),
        cache_dir=options.cache_dir,
        is_bundled=is_bundled,
        download=options.download,
        image_size=wanted.data_spec.image_size,
        report=report,
    )
    if space.backbone is not None:
        refuse_without_effect(forced)
    notes = (*notes, *space_notes)
    refuse_meaningless(checks, dataset.name, allowed=wanted.allow)
    split = split_development(dataset, seed=wanted.seed)
    space, flip_note = decide_flip(space, wanted.data_spec.dataset, dataset.class_names)
    decoded = None if stored else decode_for_backbones(space, wanted.data_spec, dataset, report=report)
    if decoded is not None:
        limit = RankingLimit.from_budget(options.budget_seconds, started=started)
        space, ranking_notes = rank_backbones(space, decoded, dataset, split, device=device, limit=limit, report=report)
        notes = (*notes, *ranking_notes)
    epochs = wanted.epochs or default_epochs(len(split.train_indices_N), is_pretrained=space.backbone is not None)
    settings = study_settings(dataset, space, seed=wanted.seed, epochs=epochs, is_space_bundled=is_bundled)
    folder = options.studies / name
    storage = storage or open_storage(url)
    with _only_writer(options, storage, name, settings, parts.test, data=wanted.data_spec) as known:
        if known is not None and has_another_version_of_its_space(known.settings, settings):
            notes = (*notes, space_note(known.settings, settings))
            space, flip_note = stored_space(known.settings), ""
        # On a GPU, whose runners share its memory, it depends on what is measured. Backbones have images of their own.
        if device.type == "cpu" and space.backbone is None:
            check_batch_sizes(space, stream_limit(dataset, device=device, memory_bytes=memory_for_images(device)))
        if known is None:
            refuse_large_first(space, input_spec_of(dataset), origin=f"space {space.name!r}")
        else:
            refuse_other_device(known, device)
            refuse_other_engine(known, devices, forced=forced)
            _bind(known, folder, parts.test)
        places = place_runners(devices, dataset, workers=options.workers, forced=forced)
        stream, images = stream_limit(dataset, device=device, memory_bytes=places.image_bytes), None
        if space.backbone is not None:  # whose images have other sizes than those of the data set
            stream, images = None, BackboneImages(len(dataset.labels_N), device, places.image_bytes)
        check_batch_sizes(space, stream)  # before there is a study, for the next run may begin it in another way
        record = known
        if record is None:
            record = create_study(storage, name, settings, engine=replace(places.engine, device=str(device)))
            _bind(record, folder, parts.test)
        record.save_data_spec(wanted.data_spec)
        num_trials = wanted_trials(wanted, options.budget_seconds)
        if num_trials is not None:
            save_wanted_trials(record, num_trials)
        save_allowed(record, wanted.allow)
        record.save_checks(checks)
        if decoded is None:  # of a study that is resumed: not before it is known to be this one, with its own space
            decoded = decode_for_backbones(space, wanted.data_spec, dataset, report=report)
        runners = prepare_runners(record, dataset, split, folder, places=places, decoded=decoded)
        notes = (*notes, *filter(None, [flip_note]), *runners.notes)
        yield data_ready(record, space, dataset, split, runners, notes, decoded=decoded, checks=checks)
        plan = SearchPlan(
            space=space,
            input_spec=input_spec_of(dataset),
            epochs=epochs,
            num_trials=num_trials,
            seed=wanted.seed,
            study_folder=folder,
            memory_bytes=runners.step_bytes,
            stream=stream,
            images=images,
            budget_seconds=max(0.0, started + options.budget_seconds - time.monotonic())
            * (1 if options.confirm == "no" else 1 - TIME_SHARE_OF_BUDGET),
            class_names=dataset.class_names,
        )
        yield from _search_and_confirm(options, record, plan, runners, parts, make_executor, started=started)


@generates_with_own_settings
def confirm_events(
    studies: Path,
    name: str | None,
    *,
    plan: ConfirmPlan,
    in_time: bool = False,
    storage: str | None = None,
    workers: int | None = None,
    report: Report | None = None,
    make_executor: ExecutorFactory = local_executor,
) -> Generator[RunEvent]:
    """Confirm the winner of an existing study on the device of its search, and yield events.

    report: is called with the progress of downloads and decoding.
    in_time: limit the confirmation to a third of the whole run's time, as at the end of `run`, whatever the plan's own
    time limit is. Nothing is stored before the end, so an interrupted confirmation restarts from scratch.

    Raises TunerError for anything that the user can fix, such as missing or changed images, before this machine is
    measured.
    """
    end_if_unguarded()
    record = load_study(existing_storage(studies, storage), name)
    refuse_older_version(record)
    folder = studies / record.name
    with hold_record(record.storage.url, record.name), hold(folder, record.name):
        trials = record.trials()
        refuse_without_winner(record, trials)
        devices = devices_for(device_of(record), is_auto=False)
        claim_folder(folder, record)
        spec = record.data_spec(studies / ".cache")
        parts = fix_parts(spec, report=report)
        dataset = parts.development
        refuse_other_images(record, spec, dataset)
        fix_test_set(record, parts.test)
        split = split_development(dataset, seed=record.settings.seed)
        networks = [one.candidate.architecture for one in trials_to_retrain(trials, plan)]
        restore_weights_of(networks, spec.cache_dir, report=report)
        places = place_runners(devices, dataset, workers=workers)
        space = stored_space(record.settings)
        decoded = decode_for_backbones(space, spec, dataset, report=report)
        runners = prepare_runners(record, dataset, split, folder, places=places, decoded=decoded)
        yield data_ready(record, space, dataset, split, runners, places.measured.notes, decoded=decoded)
        with make_executor(runners.trainers, apart=runners.device.type == "cuda") as executor:
            if in_time:
                plan = limit_to_time(plan, record, executor.num_runners)
            yield from _confirm(record, plan, executor, runners, parts)


def _search_and_confirm(
    options: RunOptions,
    record: StudyRecord,
    plan: SearchPlan,
    runners: StudyRunners,
    parts: FixedParts,
    make_executor: ExecutorFactory,
    *,
    started: float,
) -> Generator[SearchEvent | ConfirmEvent]:
    """Search, and confirm the winner in what is left of the budget; started: monotonic time of the command's start."""
    with make_executor(runners.trainers, apart=runners.device.type == "cuda") as executor:
        with closing(search(record, plan, executor)) as events:
            yield from events
        trials = record.trials()
        in_full = options.confirm == "in full"
        if options.confirm != "no" and _wants_confirmation(record, trials, in_full=in_full):
            confirm_plan = ConfirmPlan()
            if not in_full:
                seconds_left = started + options.budget_seconds - time.monotonic()
                confirm_plan = limit_to_time(confirm_plan, record, executor.num_runners, seconds_left=seconds_left)
            yield from _confirm(record, confirm_plan, executor, runners, parts)


def _confirm(
    record: StudyRecord, plan: ConfirmPlan, executor: Executor, runners: StudyRunners, parts: FixedParts
) -> Generator[ConfirmEvent]:
    events = confirm(
        record,
        plan,
        executor,
        folder=runners.folder,
        seed=record.settings.seed,
        epochs=record.settings.epochs,
        splits=Splits(runners.num_validation, runners.num_images, runners.is_validation_fixed),
        load_test_set=lambda: open_test_set(record, parts.test),
        load_test_set_for=lambda preprocessing: open_test_set(record, fix_parts_for(parts, preprocessing).test),
        development=parts.development,
        device=runners.device,
        memory_bytes=runners.image_bytes,
        together_bytes=runners.together_bytes,
    )
    with closing(events):
        yield from events


def _wants_confirmation(record: StudyRecord, trials: list[TrialRecord], *, in_full: bool) -> bool:
    """Whether there is a winner but no confirmation of all these trials, or no full one if `in_full` is set."""
    if best_trial(trials) is None:
        return False
    confirmed = record.confirmed
    if confirmed is None or confirmed.num_trials != sum(trial.counts for trial in trials):
        return True
    return in_full and not confirmed.is_full


def _has_bundled_space(options: RunOptions, earlier: StudyRecord | None) -> bool:
    """Whether a run's space comes with tuner, as one does that is chosen for a new study."""
    if options.given_space is not None:
        return options.given_space in bundled_spaces()
    return earlier is None or (earlier.settings.is_space_bundled and earlier.settings.space_name in bundled_spaces())


@contextmanager
def _only_writer(
    options: RunOptions, storage: Storage, name: str, settings: StudySettings, sealed: SealedPart, *, data: DataSpec
) -> Iterator[StudyRecord | None]:
    """Lock a study, its record and its folder, after checking that both belong to it; yield None for a new study."""
    folder = options.studies / name
    with hold_record(storage.url, name):
        known = find_study(storage, name, settings, data=data)
        if known is not None:
            refuse_other_test_set(known, sealed)
        refuse_other_studys_folder(folder, known, name)  # before the lock, which would be a new file in that folder
        with hold(folder, name):
            refuse_other_studys_folder(folder, known, name)
            yield known


def _bind(record: StudyRecord, folder: Path, sealed: SealedPart) -> None:
    """Bind the folder and the test part to the study permanently."""
    claim_folder(folder, record)
    fix_test_set(record, sealed)


def run(options: RunOptions) -> StudySummary:
    """Start or resume a study, run it to its end including its confirmation, and return a summary."""
    for _ in run_events(options):
        pass
    return load_summary(options)


def load_summary(options: RunOptions) -> StudySummary:
    """Return the summary of the study with these options. Raises StudyError if there is none."""
    storage = existing_storage(options.studies, options.storage)
    return summarise(load_study(storage, options.study_name), studies=options.studies)
