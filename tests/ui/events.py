"""The events of a small search, for what shows them."""

from __future__ import annotations

from tuner.architecture.blocks import PlainBlock
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.search.events import (
    BestTrial,
    DataReady,
    EpochFinished,
    SearchEnded,
    SearchEvent,
    SearchStarted,
    TrialEnded,
    TrialStarted,
)
from tuner.training.candidate import Candidate, Recipe
from tuner.training.results import EpochResult

CANDIDATE = Candidate(Architecture(InputSpec(1, 8, 8, 10), (PlainBlock(16, pooling="max"),), Head()), Recipe())
BEST = BestTrial(0, 0.9931, 3, 12_810)
EVENTS: list[DataReady | SearchEvent] = [
    DataReady(
        "digits-cnn", "digits", (1, 8, 8), 10, 1149, 288, "cpu", "91.9 KiB of images: held in memory", ("a note",)
    ),
    SearchStarted("digits-cnn", 3, 0, {}, None, 2, 4),
    TrialStarted(0, CANDIDATE, 12_810, 0),
    TrialStarted(1, CANDIDATE, 12_810, 1),
    *[EpochFinished(0, EpochResult(epoch, 0.5, 0.5, 0.9 + epoch / 33, 0.1)) for epoch in (1, 2, 3)],
    TrialEnded(0, "complete", "", 3, 0.9931, 4, 2.0, BEST),
    EpochFinished(1, EpochResult(1, 0.5, 0.5, 0.5, 0.1)),
]
REST: list[SearchEvent] = [
    TrialEnded(1, "pruned", "ranked 2 of 2; the best continues", 1, 0.5, 1, 1.0, BEST),
    TrialEnded(2, "failed", "RuntimeError: no luck", None, None, 0, 0.1, BEST),
    SearchEnded(2, "the time budget is used up"),
]
