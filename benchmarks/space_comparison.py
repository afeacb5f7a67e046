"""Two measurements of spaces side by side, such as before and after a space was redrawn."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.distributions import budget_in_words, errors, in_short, levels_of, percent, summarise_space
from benchmarks.rank_correlation import rank_correlation
from benchmarks.space_results import Measurement, SpaceResult
from tuner.errors import DataError


def compare(before: Measurement, after: Measurement) -> dict[str, Any]:
    """The figures of both, space by space. Spaces are paired by name, or if each file has one, whatever their names.

    Raises DataError if the networks were not trained alike, or if no space is in both.
    """
    differing = [
        f"{name} ({value!r} and {getattr(after.settings, name)!r})"
        for name, value in asdict(before.settings).items()
        if value != getattr(after.settings, name)
    ]
    if differing:
        raise DataError(f"both files must have the same settings, and they differ in {', '.join(differing)}")
    pairs = _pairs(before, after)
    return {
        "settings": asdict(before.settings),
        "reference": [before.reference.accuracy, after.reference.accuracy],
        "spaces": [_compared(one, other, before, after) for one, other in pairs],
    }


def comparison_table(compared: dict[str, Any]) -> str:
    settings, (before, after) = compared["settings"], compared["reference"]
    lines = [
        f"{settings['dataset']}: {budget_in_words(settings)}; reference "
        f"{settings['reference']}: {percent(before)} before, {percent(after)} after"
    ]
    for one in compared["spaces"]:
        lines += ["", " -> ".join(dict.fromkeys(one["names"])), f"  {'':<28}{'before':>10}{'after':>10}"]
        lines += [f"  {name:<28}{first:>10}{second:>10}" for name, first, second in _rows(one)]
        lines.append(
            f"  a network of the second is better than one of the first in {percent(one['share_of_pairs_better'])} of "
            f"the pairs (p {one['p_value']:.4f})"
        )
    return "\n".join(lines)


def _rows(one: dict[str, Any]) -> list[tuple[str, ...]]:
    both = (one["before"], one["after"])
    quartiles = list(zip(*(summary["quartiles"] for summary in both), strict=True))
    names = ("lower quartile", "median", "upper quartile")
    rows: list[tuple[str, ...]] = [("networks", *(str(summary["networks"]) for summary in both))]
    rows += [(name, *map(percent, pair)) for name, pair in zip(names, quartiles, strict=True)]
    for name, key in (("best", "best"), ("better than the reference", "share_better")):
        rows.append((name, *(percent(summary[key]) for summary in both)))
    rows.append(("first configuration", *(percent(summary["first"]["accuracy"]) for summary in both)))
    for key in ("flops", "parameters"):
        name = {"flops": "FLOPs"}.get(key, key)
        rows.append((f"{name}, median", *(in_short(summary[key]["median"]) for summary in both)))
        rows.append((f"{name}, largest/smallest", *(f"{summary[key]['ratio']:.1f}" for summary in both)))
    for first, second in zip(*(summary["errors"] for summary in both), strict=True):
        rows.append((f"error at most {percent(first['error'])}", percent(first["share"]), percent(second["share"])))
    return rows


def _pairs(before: Measurement, after: Measurement) -> list[tuple[SpaceResult, SpaceResult]]:
    if len(before.spaces) == len(after.spaces) == 1:
        return [(before.spaces[0], after.spaces[0])]
    by_name = {one.name: one for one in after.spaces}
    pairs = [(one, by_name[one.name]) for one in before.spaces if one.name in by_name]
    if not pairs:
        names = [", ".join(one.name for one in measured.spaces) for measured in (before, after)]
        raise DataError(f"both files must have a space of the same name; they have {names[0]} and {names[1]}")
    return pairs


def _compared(one: SpaceResult, other: SpaceResult, before: Measurement, after: Measurement) -> dict[str, Any]:
    counted = [[network for network in result.networks if network.run.is_counted] for result in (one, other)]
    if not all(counted):
        raise DataError(f"both files must have trained networks of {one.name}, and one has none")
    accuracies = [np.array([network.run.accuracy for network in networks]) for networks in counted]
    is_after_N = np.repeat([0.0, 1.0], [len(values) for values in accuracies])
    _, p_value = rank_correlation(is_after_N, np.concatenate(accuracies))
    gains = accuracies[1][:, None] - accuracies[0][None, :]
    levels = levels_of(before.reference)  # the same for both
    summaries = [summarise_space(one, before.reference), summarise_space(other, after.reference)]
    return {
        "names": [one.name, other.name],
        "before": {**summaries[0], "errors": errors(counted[0], levels)},
        "after": {**summaries[1], "errors": errors(counted[1], levels)},
        "share_of_pairs_better": float((gains > 0).mean() + (gains == 0).mean() / 2),
        "p_value": p_value,
    }
