"""Images per second of one pass over a fixed list of networks: (a) textbook, (b) the same on every core, (c) ours.

(a) trains on the device of ours; (b) is measured on a CPU alone: processes on the same GPU are no textbook's way.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from benchmarks.convolutions import seconds_in_convolutions
from benchmarks.every_core import run_processes
from benchmarks.subset import SubsetTrainer, choose_rows
from benchmarks.textbook import train_textbook
from tuner.architecture.any_architecture import as_traced
from tuner.architecture.cost import layer_cost
from tuner.architecture.parts import layers_of
from tuner.architecture.spec import InputSpec
from tuner.architecture.trace import trace
from tuner.data.dataset import DataSpec
from tuner.data.development_part import load_development
from tuner.errors import RunnerError
from tuner.hardware import device_name, num_cores
from tuner.search.coordinator import search
from tuner.search.events import TrialEnded, TrialStarted
from tuner.search.executors import Executor, LocalProcesses
from tuner.search.search_plan import SearchPlan
from tuner.search.settings import StudySettings, space_to_json
from tuner.search.storage import open_storage
from tuner.search.study_lookup import open_study
from tuner.search.study_runners import input_spec_of
from tuner.space.sampling import candidate_from, first_params
from tuner.space.schema import Configuration, SearchSpace
from tuner.space.toml_file import load_space
from tuner.training.candidate import Candidate
from tuner.training.device import choose_device
from tuner.training.engine import Engine
from tuner.training.engine_measurement import load_or_measure
from tuner.training.engine_option import force, parse_forced

Say = Callable[[str], None]
LISTS = {"plain": "throughput.toml", "residual": "throughput_residual.toml"}
"""The lists of networks by their names on the command line: files in this folder."""


def measure(
    data_dir: Path, *, dataset: str, list_name: str, num_images: int, num_seeds: int, engine: str = "auto", say: Say
) -> dict[str, Any]:
    """Run (a), (b) and (c), and give what the command prints. engine: choices that (c) is forced to.

    Raises TunerError for choices, a data set or a machine that this cannot be measured with.
    """
    device = choose_device("auto")
    forced = parse_forced(engine, device)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        images = load_development(DataSpec(dataset, data_dir, work / "cache"))
        rows = choose_rows(len(images.labels_N), num_images)
        say(f"{len(rows.train):,} images to train on, {len(rows.validation):,} to score")
        space = load_list(list_name)
        input_spec = input_spec_of(images)
        candidates = networks(space, input_spec)
        measured = load_or_measure(device, input_spec.shape, num_threads=1, cache_dir=work)
        measured = force(measured, forced)
        cores = num_cores()
        say(f"{device_name(device)}, {cores} cores, torch {torch.__version__}; engine {measured.engine}")
        rates = {precision: matrix_product_rate(precision, device) for precision in (torch.float32, torch.bfloat16)}
        bf16_is_faster = rates[torch.bfloat16] > rates[torch.float32]
        total_flops = len(rows.train) * sum(map(training_flops, candidates))
        floor = total_flops / max(rates.values())
        say(f"floor: {total_flops / 1e12:.2f} TFLOP at {max(rates.values()) / 1e9:.0f} GFLOP/s: {floor:.1f} s")

        threads = max(1, cores // measured.runners.count)
        ours_on = replace(measured.engine, num_threads=threads)
        seconds_c, accuracies_c, rows_c = [], [], []
        for seed in range(num_seeds):
            trainer = SubsetTrainer(images.folder, "throughput", work / "checkpoints", 0, ours_on, rows=rows)
            executor = LocalProcesses([trainer] * measured.runners.count)
            try:
                run_ours(executor, small(space, executor.num_runners), input_spec, work / f"warm-{seed}", seed)
                seconds, ended = run_ours(executor, space, input_spec, work / f"{seed}", seed)
            finally:
                executor.close()
            seconds_c.append(seconds)
            accuracies_c.append(mean(one.validation_accuracy or 0.0 for one in ended))
            rows_c.append([one.seconds for one in ended])
            say(f"(c) ours, seed {seed}: {seconds:.1f} s, mean accuracy {accuracies_c[-1]:.2%}")
        seconds_b: float | None = None
        results_b: list[tuple[float, float]] = []
        if device.type == "cpu":
            seconds_b, results_b = run_processes(candidates, images.folder, rows, num_processes=cores)
            say(f"(b) textbook, {cores} processes of one thread: {seconds_b:.1f} s")
        else:
            say(f"(b) is skipped: a process for each core is the textbook's way on a CPU, and this is {device.type}")
        torch.set_num_threads(cores)
        started = time.perf_counter()
        results_a = [
            list(train_textbook(candidate, images.folder, rows, seed=1, device=device))[-1] for candidate in candidates
        ]
        seconds_a = time.perf_counter() - started
        say(f"(a) textbook, {device.type}, {cores} threads: {seconds_a:.1f} s")
        convolutions = [
            seconds_in_convolutions(candidate, engine=ours_on, num_images=len(rows.train)) for candidate in candidates
        ]

    ours = median(seconds_c)
    ours_by_network = [median(seconds) for seconds in zip(*rows_c, strict=True)]
    num_all = len(rows.train) * len(candidates)
    return {
        "list": list_name,
        "machine": device_name(device),
        "cores": cores,
        "torch": torch.__version__,
        "engine": measured.engine.to_json(),
        "images": len(rows.train),
        "bf16_is_faster": bf16_is_faster,
        "seconds_textbook": seconds_a,
        "seconds_best_textbook": seconds_b,
        "seconds_ours": ours,
        "seconds_ours_by_seed": seconds_c,
        "seconds_floor": floor,
        # Were the networks shared out evenly, whatever their order, so that none waits for another in the end.
        "evenly_best_textbook": sum(seconds for seconds, _ in results_b) / cores if results_b else None,
        "evenly_ours": sum(ours_by_network) / measured.runners.count,
        "images_per_second_textbook": num_all / seconds_a,
        "images_per_second_best_textbook": num_all / seconds_b if seconds_b else None,
        "images_per_second_ours": num_all / ours,
        "ratio_vs_textbook": seconds_a / ours,
        "ratio_vs_best_textbook": seconds_b / ours if seconds_b else None,
        "share_of_floor": floor / ours,
        "share_in_convolutions": sum(convolutions) / sum(ours_by_network),
        "ratio_if_only_convolutions": (
            sum(seconds for seconds, _ in results_b) / cores / (sum(convolutions) / measured.runners.count)
            if results_b
            else None
        ),
        "mean_accuracy_textbook": mean(accuracy for _, accuracy in (*results_a, *results_b)),
        "mean_accuracy_ours": mean(accuracies_c),
        "networks": [
            {
                "network": str(candidate.architecture),
                "batch_size": candidate.recipe.batch_size,
                "training_mflop": training_flops(candidate) / 1e6,
                "seconds_textbook": results_a[number][0],
                "seconds_best_textbook": results_b[number][0] if results_b else None,
                "seconds_ours": ours_by_network[number],
                # Of equal shares of the machine, whatever number of processes each side divides it among.
                "ratio_vs_best_textbook": (
                    results_b[number][0] / cores / (ours_by_network[number] / measured.runners.count)
                    if results_b
                    else None
                ),
                "seconds_in_convolutions": convolutions[number],
                "share_in_convolutions": convolutions[number] / ours_by_network[number],
            }
            for number, candidate in enumerate(candidates)
        ],
    }


def table(result: dict[str, Any]) -> str:
    """The measurement as text: a row for each network, then the sums; `-` for what was skipped."""
    lines = [f"{'(a) s':>8} {'(b) s':>8} {'(c) s':>8} {'(b)/(c)':>7} {'conv':>5} {'MFLOP':>7}  network"]
    lines += [
        f"{row['seconds_textbook']:8.1f} {shown(row['seconds_best_textbook'], '.1f'):>8} {row['seconds_ours']:8.1f} "
        f"{shown(row['ratio_vs_best_textbook'], '.2f'):>7} {row['share_in_convolutions']:5.0%} "
        f"{row['training_mflop']:7.1f}  b{row['batch_size']} {row['network']}"
        for row in result["networks"]
    ]
    names: tuple[str, ...] = ("textbook", "best_textbook", "ours")
    lines += [
        f"{name:<14} {shown(result[f'seconds_{name}'], '.1f'):>7} s  "
        f"{shown(result[f'images_per_second_{name}'], '.0f'):>8} images/s"
        for name in names
    ]
    keys: tuple[str, ...] = ("ratio_vs_textbook", "ratio_vs_best_textbook", "share_of_floor", "bf16_is_faster")
    keys += ("share_in_convolutions", "ratio_if_only_convolutions")
    keys += ("evenly_best_textbook", "evenly_ours", "mean_accuracy_textbook", "mean_accuracy_ours")
    return "\n".join([*lines, *(f"{key:<26} {shown(result[key], '.4g')}" for key in keys)])


def shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def load_list(name: str) -> SearchSpace:
    """A list of networks, which are the configurations that its space tries first."""
    return load_space(str(Path(__file__).with_name(LISTS[name])))


def networks(space: SearchSpace, input_spec: InputSpec) -> list[Candidate]:
    """The fixed list, for one epoch each."""
    return [candidate_from(params, space, input_spec, epochs=1) for params in first_params(space)]


def training_flops(candidate: Candidate) -> int:
    """FLOPs to learn from one image: forward, and twice as many back, but no gradient of the image itself."""
    costs = [layer_cost(layer).flops for layer in layers_of(trace(as_traced(candidate.architecture)))]
    return 3 * sum(costs) - costs[0]


def matrix_product_rate(dtype: torch.dtype, device: torch.device, *, repeats: int = 15) -> float:
    """FLOP/s of a device on a matrix product; of a CPU each core on its own: one core's median times their number."""
    torch.set_num_threads(1)
    size, together = (1024, num_cores()) if device.type == "cpu" else (4096, 1)
    a, b = torch.randn(2, size, size).to(device, dtype)
    wait_for(a @ b)
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < repeats and (len(times) < 3 or time.perf_counter() - started < 10):
        begun = time.perf_counter()
        wait_for(a @ b)
        times.append(time.perf_counter() - begun)
    return together * 2 * size**3 / median(times)


def wait_for(result: torch.Tensor) -> None:
    """What a GPU is asked for is done later; reading one number of it waits for all."""
    result[0, 0].item()


def small(space: SearchSpace, num_networks: int) -> SearchSpace:
    """The space with so many small networks, for every runner's process to start and open the data set with."""
    widths = [8 * (number + 1) for number in range(num_networks)]
    if space.stage is None:
        first = [Configuration(block=[{"out_channels": width}]) for width in widths]
    else:
        first = [Configuration(stem={"out_channels": width}, stage=[{"stride": 2}]) for width in widths]
    return space.model_copy(update={"first": first})


def run_ours(
    executor: Executor, space: SearchSpace, input_spec: InputSpec, folder: Path, seed: int
) -> tuple[float, list[TrialEnded]]:
    """Every configuration of the space through the real search loop, one epoch each; seconds, and how each ended.

    What ended is in the order of the space; the search starts the longest first. Raises RunnerError for a trial that is
    not complete.
    """
    folder.mkdir()
    stored = space_to_json(space)
    settings = StudySettings("none", "none", space_name=space.name, space=stored, seed=seed, epochs=1)
    record = open_study(open_storage(f"sqlite:///{folder / 'tuner.db'}"), "throughput", settings, engine=Engine())
    plan = SearchPlan(
        space, input_spec, epochs=1, num_trials=len(space.first), seed=seed, study_folder=folder / "study"
    )
    started = time.perf_counter()
    events = list(search(record, plan, executor))
    seconds = time.perf_counter() - started
    ended = [event for event in events if isinstance(event, TrialEnded)]
    candidate_of = {event.number: event.candidate for event in events if isinstance(event, TrialStarted)}
    failed = [one for one in ended if one.outcome != "complete"]
    if failed:
        raise RunnerError(
            f"every network must train to the end of its epoch; {candidate_of[failed[0].number].architecture} did not "
            f"({failed[0].outcome}): {failed[0].reason}; fix that, and start again"
        )
    ended_of = {candidate_of[one.number].fingerprint: one for one in ended}
    return seconds, [ended_of[candidate.fingerprint] for candidate in networks(space, input_spec)]
