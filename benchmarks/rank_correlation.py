"""Which parameters separate good networks from bad: rank correlations with accuracy, with p-values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.space_results import SampledNetwork

# Shape suffixes: N networks, P permutations.

NUM_PERMUTATIONS = 9_999
MIN_NETWORKS = 5
"""With fewer, even the strongest correlation is usual among permutations."""
NUMBERED = re.compile(r"^(?:block|stage)\d+_")
"""Parameters of one block or stage; together they are shown as `each_...`."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Feature:
    """A number for each network: a parameter, or whether (or in what share of blocks) it has one of its values.

    values: by the network's position; a network in which the parameter has no effect has none.
    """

    name: str
    values: Mapping[int, float]


@dataclass(frozen=True)
class Separation:
    """How a feature goes with accuracy. correlation: Spearman's. p_value: share of permutations at least as strong.

    accuracy_low, accuracy_high: mean accuracy of the networks whose value is at most the mean of all, and above it.
    """

    name: str
    num_networks: int
    correlation: float
    p_value: float
    accuracy_low: float
    accuracy_high: float


def separations(networks: Sequence[SampledNetwork]) -> list[Separation]:
    """Each sampled parameter, each one's mean over blocks or stages, and the size of the network; the clearest first.

    Networks that do not count are skipped. A parameter whose values do not differ is skipped, too.
    """
    counted = [one for one in networks if one.run.is_counted]
    accuracies_N = np.array([one.run.accuracy for one in counted])
    found = [
        separation for feature in _features(counted) if (separation := _separation(feature, accuracies_N)) is not None
    ]
    return sorted(found, key=lambda one: (one.p_value, -abs(one.correlation), one.name))


def rank_correlation(values_N: Floats, accuracies_N: Floats) -> tuple[float, float]:
    """Spearman's correlation, and its two-sided p-value from random permutations, the same at every call.

    Source: Phipson and Smyth, Permutation p-values should never be zero, 2010.
    """
    ranks_N, others_N = _standardized_ranks(values_N), _standardized_ranks(accuracies_N)
    correlation = float(ranks_N @ others_N)
    order_PN = np.random.default_rng(0).random((NUM_PERMUTATIONS, len(ranks_N))).argsort(axis=1)
    permuted_P = others_N[order_PN] @ ranks_N
    num_as_strong = int((np.abs(permuted_P) >= abs(correlation) - 1e-12).sum())
    return correlation, (1 + num_as_strong) / (1 + NUM_PERMUTATIONS)


def _standardized_ranks(values_N: Floats) -> Floats:
    """Mean ranks of equal values, centred, with a sum of squares of 1; zeros if all values are equal."""
    _, inverse_N, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    ranks_N = (np.cumsum(counts) - (counts - 1) / 2)[inverse_N]
    centred_N: Floats = ranks_N - ranks_N.mean()
    norm = float(np.sqrt((centred_N**2).sum()))
    return centred_N / norm if norm else centred_N


def _separation(feature: Feature, accuracies_N: Floats) -> Separation | None:
    rows = np.array(sorted(feature.values), dtype=np.int64)
    values_N = np.array([feature.values[row] for row in rows.tolist()])
    if len(rows) < MIN_NETWORKS or len(set(values_N.tolist())) < 2:
        return None
    accuracies_N = accuracies_N[rows]
    is_high_N = values_N > values_N.mean()
    correlation, p_value = rank_correlation(values_N, accuracies_N)
    low, high = float(accuracies_N[~is_high_N].mean()), float(accuracies_N[is_high_N].mean())
    return Separation(feature.name, len(rows), correlation, p_value, low, high)


def _features(networks: Sequence[SampledNetwork]) -> Iterator[Feature]:
    yield Feature("FLOPs", {row: float(one.flops) for row, one in enumerate(networks)})
    yield Feature("parameters", {row: float(one.num_parameters) for row, one in enumerate(networks)})
    names = list(dict.fromkeys(name for one in networks for name in one.params))
    groups: dict[str, list[str]] = {}
    for name in names:
        yield from _of_parameter(name, [name], networks)
        if NUMBERED.match(name):
            groups.setdefault(NUMBERED.sub("each_", name), []).append(name)
    for group, members in groups.items():
        if len(members) > 1:
            yield from _of_parameter(group, members, networks)


def _of_parameter(name: str, members: Sequence[str], networks: Sequence[SampledNetwork]) -> Iterator[Feature]:
    """The mean of the members that have an effect; of words, the share of each word among them."""
    drawn = {
        row: values
        for row, one in enumerate(networks)
        if (values := [one.params[key] for key in members if key in one.params and key not in one.without_effect])
    }
    words = sorted({value for values in drawn.values() for value in values if isinstance(value, str)})
    if not words:
        yield Feature(name, {row: _mean(values) for row, values in drawn.items()})
        return
    for word in words[1:] if len(words) == 2 else words:  # of two, one is the mirror image of the other
        shares = {row: _mean(value == word for value in values) for row, values in drawn.items()}
        yield Feature(f"{name} = {word}", shares)


def _mean(values: Iterable[Any]) -> float:
    return float(np.mean([float(value) for value in values]))
