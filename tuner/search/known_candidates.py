"""KnownCandidates: the candidates that a study has trained or is training, so that none is trained twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from optuna.trial import TrialState


@dataclass(frozen=True)
class KnownTrial:
    """A trial of a candidate. curve: its validation accuracy by epoch, which grows while it runs."""

    number: int
    curve: Mapping[int, float]
    state: TrialState


class KnownCandidates:
    """The trials of a study by the fingerprints of their candidates."""

    def __init__(self) -> None:
        self._by_fingerprint: dict[str, KnownTrial] = {}

    def find(self, fingerprint: str) -> KnownTrial | None:
        """Return the trial that a candidate would repeat; None if it is new."""
        return self._by_fingerprint.get(fingerprint)

    def begin(self, fingerprint: str, trial: KnownTrial) -> None:
        """Add a candidate whose trial is running or waiting to be resumed."""
        self._by_fingerprint[fingerprint] = trial

    def end(self, fingerprint: str, trial: KnownTrial, *, is_repeated: bool = False) -> KnownTrial:
        """Record how a trial ended, and return what the sampler learns about its parameters.

        A repeated trial was not trained, so the sampler learns the result of the first trial of its candidate, if that
        is known. A failed trial is forgotten, so that its candidate may be tried once more: the runner may have been
        the cause.
        """
        if is_repeated:
            return self._by_fingerprint.get(fingerprint, trial)
        if trial.state is TrialState.FAIL:
            self._by_fingerprint.pop(fingerprint, None)
        else:
            self._by_fingerprint[fingerprint] = trial
        return trial
