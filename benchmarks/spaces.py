"""Distributions of networks: sampled networks of each space, its first configuration, and a reference, all trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.learning_curves import Runners, Trained, open_runners, train_curves
from benchmarks.references import choose_reference, reference_candidate
from benchmarks.sampled_networks import Drawn, draw_networks
from benchmarks.space_results import FORMAT, Measurement, RepeatedNetwork, SampledNetwork, Settings, SpaceResult
from benchmarks.subset import Rows, choose_rows
from tuner.architecture.any_architecture import cost_of
from tuner.architecture.spec import InputSpec
from tuner.data.dataset import DataSpec, ImageDataset
from tuner.data.development_part import load_development
from tuner.deliver.intervals import Correct, Spread, accuracy_interval, difference_interval, pool, spread_of_seeds
from tuner.errors import OptionError, RunnerError
from tuner.hardware import device_name
from tuner.search.settings import space_to_json
from tuner.search.study_runners import input_spec_of
from tuner.space.automatic_flip import decide_flip
from tuner.space.baseline import baselines
from tuner.space.schema import SearchSpace
from tuner.space.toml_file import load_space
from tuner.training.candidate import Candidate

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to train. seconds: time limit for the sampled networks of each space.

    num_samples: networks of each space; 0 trains the reference and the first configurations alone.
    reference: name of the reference; None for the one of the data set.
    """

    spaces: tuple[str, ...]
    data: DataSpec
    num_samples: int
    num_images: int
    epochs: int
    num_seeds: int
    seed: int
    seconds: float = float("inf")
    reference: str | None = None
    workers: int | None = None


@dataclass(frozen=True)
class Repeated:
    """A network that was trained with every seed, with the images of each that it was right on."""

    network: RepeatedNetwork
    correct_SN: Correct


def measure(plan: Plan, *, say: Say) -> Measurement:
    """Train the reference and each first configuration with every seed, then the sampled networks of each space.

    All are trained for the same epochs on the same images, and scored on the same others. Raises TunerError for
    options, a data set, a space or a machine that this cannot be measured with.
    """
    spaces = [load_space(name) for name in plan.spaces]
    names = [space.name for space in spaces]
    if len(set(names)) < len(names):
        raise OptionError(f"every --space must have a name of its own, got {', '.join(names)}")
    if plan.reference is not None:
        choose_reference(plan.reference)  # a wrong name is an error before images are decoded
    images = load_development(plan.data)
    spaces = [decide_flip(space, plan.data.dataset, images.class_names)[0] for space in spaces]
    reference = choose_reference(plan.reference or images.name)
    rows = choose_rows(len(images.labels_N), plan.num_images)
    with open_runners(images, rows, work=plan.data.cache_dir, workers=plan.workers) as runners:
        say(f"{device_name(torch.device(runners.engine.device))}, {runners.executor.num_runners} runners")
        say(f"engine: {runners.engine}")
        return measure_on(runners, plan, spaces, reference, images, rows, say=say)


def measure_on(
    runners: Runners,
    plan: Plan,
    spaces: Sequence[SearchSpace],
    reference: SearchSpace,
    images: ImageDataset,
    rows: Rows,
    *,
    say: Say,
) -> Measurement:
    """Measure on given runners and images. Raises TunerError."""
    input_spec = input_spec_of(images)
    given = [reference_candidate(reference, input_spec, epochs=plan.epochs)]
    given += [next(baselines(space, input_spec, epochs=plan.epochs)).candidate for space in spaces]
    repeated, spread = train_repeated(given, ["reference", *(space.name for space in spaces)], plan, runners, say)
    results = tuple(
        _result(space, one, repeated[0], spread, plan, runners, input_spec, say)
        for space, one in zip(spaces, repeated[1:], strict=True)
    )
    settings = Settings(
        images.name, images.digest, len(rows.train), len(rows.validation), plan.epochs, reference=reference.name
    )
    return Measurement(
        FORMAT,
        settings,
        seed=plan.seed,
        machine=device_name(torch.device(runners.engine.device)),
        torch=torch.__version__,
        engine=runners.engine.to_json(),
        reference=repeated[0].network,
        spaces=results,
    )


def train_repeated(
    candidates: Sequence[Candidate], names: Sequence[str], plan: Plan, runners: Runners, say: Say
) -> tuple[list[Repeated], Spread]:
    """Train candidates with every seed, equal ones only once; and the spread of all of them over the seeds.

    Raises RunnerError for a training run that does not end in its last epoch.
    """
    name_of: dict[str, str] = {}
    for candidate, name in zip(candidates, names, strict=True):
        name_of.setdefault(candidate.fingerprint, name)
    different = {candidate.fingerprint: candidate for candidate in candidates}
    seeds = [plan.seed + number for number in range(plan.num_seeds)]
    tasks = [(candidate, seed) for seed in seeds for candidate in different.values()]
    trained: dict[str, list[Trained]] = {fingerprint: [] for fingerprint in different}
    # In the order of the tasks, so that the seeds of all candidates are in the same order.
    for one in sorted(train_curves(tasks, runners.executor), key=lambda one: one.number):
        candidate, seed = tasks[one.number]
        name = name_of[candidate.fingerprint]
        if one.run.outcome != "finished":
            raise RunnerError(
                f"the reference and every first configuration must train to their last epoch; {name} did not with seed "
                f"{seed} ({one.run.outcome}): {one.run.reason}; fix that, and run the command again"
            )
        say(f"{name}, seed {seed}: {one.run.accuracy:.2%} in {one.run.seconds:.1f} s")
        trained[candidate.fingerprint].append(one)
    correct = {fingerprint: np.stack([_correct(one) for one in runs]) for fingerprint, runs in trained.items()}
    spread = pool(spread_of_seeds(correct_SN) for correct_SN in correct.values())
    repeated = [
        Repeated(_repeated(one, trained[one.fingerprint], correct[one.fingerprint], spread), correct[one.fingerprint])
        for one in candidates
    ]
    return repeated, spread


def _correct(one: Trained) -> Correct:
    assert one.correct_N is not None
    return one.correct_N


def _repeated(candidate: Candidate, trained: Sequence[Trained], correct_SN: Correct, spread: Spread) -> RepeatedNetwork:
    cost = cost_of(candidate.architecture)
    return RepeatedNetwork(
        candidate.to_json(),
        cost.flops,
        cost.num_parameters,
        tuple(one.run for one in trained),
        accuracy=float(correct_SN.mean()),
        interval=accuracy_interval(correct_SN, spread),
    )


def _result(
    space: SearchSpace,
    first: Repeated,
    reference: Repeated,
    spread: Spread,
    plan: Plan,
    runners: Runners,
    input_spec: InputSpec,
    say: Say,
) -> SpaceResult:
    """Draw and train the sampled networks of a space."""
    draws = draw_networks(
        space,
        input_spec,
        epochs=plan.epochs,
        num_networks=plan.num_samples,
        seed=plan.seed,
        step_bytes=runners.step_bytes,
    )
    started = time.monotonic()
    trained: dict[int, Trained] = {}
    tasks = [(drawn.candidate, plan.seed) for drawn in draws.networks]
    for one in train_curves(tasks, runners.executor, seconds=plan.seconds):
        trained[one.number] = one
        run = one.run
        words = f"{run.accuracy:.2%}" if run.outcome == "finished" else f"{run.outcome}: {run.reason}"
        say(f"{space.name} {len(trained)} of {len(tasks)}: {words} in {run.seconds:.1f} s")
    is_reference = first.network.candidate == reference.network.candidate
    return SpaceResult(
        space.name,
        space_to_json(space),
        first.network,
        difference=first.network.accuracy - reference.network.accuracy,
        difference_interval=(
            None if is_reference else difference_interval(first.correct_SN, reference.correct_SN, spread)
        ),
        networks=tuple(_network(draws.networks[number], trained[number]) for number in sorted(trained)),
        num_rejected=draws.num_rejected,
        num_repeated=draws.num_repeated,
        num_untrained=len(tasks) - len(trained),
        seconds=time.monotonic() - started,
    )


def _network(drawn: Drawn, trained: Trained) -> SampledNetwork:
    return SampledNetwork(
        drawn.params,
        drawn.without_effect,
        drawn.candidate.to_json(),
        drawn.cost.flops,
        drawn.cost.num_parameters,
        trained.run,
    )
