"""Trains the networks that it is given, each for an epoch on noise, in a process that has trained before.

Standard input: the engine and the candidates in JSON. Standard output: for each a peak in bytes, on top of what the
process had before, and what it has kept once the memory is given back.
"""

import json
import sys
from collections.abc import Iterator

import torch

from tuner.architecture.backbone_modules import split_network
from tuner.architecture.blocks import PlainBlock
from tuner.architecture.spec import Architecture, Head
from tuner.data.resident import ResidentData
from tuner.training.candidate import Candidate, Recipe
from tuner.training.engine import Engine
from tuner.training.loop import train
from tuner.training.process_settings import give_back_memory, prepare_process
from tuner.training.results import EpochResult
from tuner.training.step import place
from tuner.training.tail import train_tail

NUM_TRAIN, NUM_VALIDATION = 1_030, 1_030  # the last batches are short


def noise_for(candidate: Candidate) -> ResidentData:
    shape, num_classes = candidate.architecture.input_shape, candidate.architecture.input.num_classes
    num_images = NUM_TRAIN + NUM_VALIDATION
    return ResidentData(
        name="noise",
        digest="",
        class_names=tuple(map(str, range(num_classes))),
        images_NCHW=torch.randint(256, (num_images, *shape), dtype=torch.uint8),
        labels_N=torch.randint(num_classes, (num_images,)),
        train_indices_N=torch.arange(NUM_TRAIN),
        validation_indices_N=torch.arange(NUM_TRAIN, num_images),
        mean=(0.5,) * shape[0],
        std=(0.3,) * shape[0],
    )


def private_bytes() -> tuple[int, int]:
    """Of this process now, and at the peak since `reset_peak`."""
    with open("/proc/self/status", encoding="ascii") as file:
        kib = {line.split(":")[0]: int(line.split()[1]) for line in file if line.startswith(("Rss", "VmHWM"))}
    return 1024 * kib["RssAnon"], 1024 * (kib["VmHWM"] - kib["RssFile"] - kib["RssShmem"])


def reset_peak() -> None:
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def epochs_of(candidate: Candidate, data: ResidentData, engine: Engine) -> Iterator[EpochResult]:
    if isinstance(candidate.architecture, Architecture):
        return train(candidate, data, engine=engine, seed=0)
    split = split_network(candidate.architecture)
    place(split.model, engine)
    return train_tail(candidate, split, data, is_on_features=False, engine=engine, seed=0)


def learn(candidate: Candidate, engine: Engine) -> tuple[int, int]:
    data = noise_for(candidate)
    give_back_memory(engine)
    reset_peak()
    before, _ = private_bytes()
    for _ in epochs_of(candidate, data, engine):
        pass
    _, peak = private_bytes()
    give_back_memory(engine)
    after, _ = private_bytes()
    return peak - before, after - before


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    engine = Engine.from_json(asked["engine"])
    prepare_process(engine)
    candidates = [Candidate.from_json(one) for one in asked["candidates"]]
    tiny = Architecture(candidates[0].architecture.input, (PlainBlock(1),), Head())
    learn(Candidate(tiny, Recipe(epochs=1)), engine)  # what torch sets up with its first network
    json.dump([learn(candidate, engine) for candidate in candidates], sys.stdout)
