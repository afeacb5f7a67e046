"""The distribution of a space's networks in figures and as text: quartiles, errors, sizes, and what separates them.

Spaces are compared by the distribution of the errors of random networks, not by their best one. Source: Radosavovic et
al., On Network Design Spaces for Visual Recognition, 2019, and Designing Network Design Spaces, 2020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.rank_correlation import separations
from benchmarks.space_results import Interval, Measurement, RepeatedNetwork, SampledNetwork, SpaceResult
from tuner.deliver.intervals import wilson

POINTS_BELOW = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Where the distribution of errors is shown: the reference's error, and so much above it."""
MATCHING = 0.01
"""A first configuration matches its reference if it is at most so much below it."""
SHARE_GOAL, MEDIAN_GOAL, FLOPS_GOAL = 1 / 8, 0.1, 10.0
"""Goals of a space: the share of its networks that beats the reference, at least; how far the median is below the
reference, at most; and its largest FLOPs divided by its smallest, at least."""
MAX_ROWS = 15
"""How many features the text lists; the JSON has all of them."""


def summarise(measured: Measurement) -> dict[str, Any]:
    """All figures that the command prints, from what was measured."""
    reference = measured.reference
    return {
        "settings": asdict(measured.settings),
        "machine": measured.machine,
        "reference": figures_of(reference),
        "spaces": [summarise_space(result, reference) for result in measured.spaces],
    }


def figures_of(network: RepeatedNetwork) -> dict[str, Any]:
    return {
        "accuracy": network.accuracy,
        "interval": network.interval,
        "seeds": len(network.runs),
        "flops": network.flops,
        "parameters": network.num_parameters,
        "seconds": sum(run.seconds for run in network.runs),
    }


def summarise_space(result: SpaceResult, reference: RepeatedNetwork) -> dict[str, Any]:
    counted = [one for one in result.networks if one.run.is_counted]
    outcomes = [one.run.outcome for one in result.networks]
    summary: dict[str, Any] = {
        "space": result.name,
        "first": figures_of(result.first),
        "first_is_reference": result.first.candidate == reference.candidate,
        "first_difference": result.difference,
        "first_difference_interval": result.difference_interval,
        "first_matches": result.difference >= -MATCHING,
        "networks": len(counted),
        "rejected": result.num_rejected,
        "repeated": result.num_repeated,
        "untrained": result.num_untrained,
        "diverged": outcomes.count("diverged"),
        "failed": len(outcomes) - len(counted),
        "seconds": result.seconds,
        "seconds_of_networks": [one.run.seconds for one in result.networks],
    }
    if not counted:
        return summary
    accuracies = [one.run.accuracy for one in counted]
    num_better = sum(accuracy > reference.accuracy for accuracy in accuracies)
    quartiles = [float(value) for value in np.quantile(accuracies, (0.25, 0.5, 0.75))]
    below = reference.accuracy - quartiles[1]
    flops = spread_of([one.flops for one in counted])
    return summary | {
        "quartiles": quartiles,
        "best": max(accuracies),
        "worst": min(accuracies),
        "better": num_better,
        "share_better": num_better / len(counted),
        "share_better_interval": wilson(num_better / len(counted), len(counted)),
        "median_below_reference": below,
        "flops": flops,
        "parameters": spread_of([one.num_parameters for one in counted]),
        "errors": errors(counted, levels_of(reference)),
        "goals": {
            "share": num_better / len(counted) >= SHARE_GOAL,
            "median": below <= MEDIAN_GOAL,
            "flops": flops["ratio"] >= FLOPS_GOAL,
        },
        "separations": [asdict(one) for one in separations(result.networks)],
    }


def spread_of(sizes: Sequence[int]) -> dict[str, float]:
    """Smallest and largest, and the range from 5 % to 95 % of the networks, each with its ratio; and the median."""
    low, median, high = (float(value) for value in np.quantile(sizes, (0.05, 0.5, 0.95)))
    return {
        "smallest": min(sizes),
        "largest": max(sizes),
        "ratio": max(sizes) / max(1, min(sizes)),
        "median": median,
        "low": low,
        "high": high,
        "ratio_low_high": high / max(1.0, low),
    }


def levels_of(reference: RepeatedNetwork) -> list[float]:
    """The errors at which distributions are shown."""
    return [min(1.0, 1 - reference.accuracy + points) for points in POINTS_BELOW]


def errors(networks: Sequence[SampledNetwork], levels: Sequence[float]) -> list[dict[str, float]]:
    """The empirical distribution function of the errors: the share of the networks with at most each error."""
    found = np.array([1 - one.run.accuracy for one in networks])
    return [{"error": level, "share": float((found <= level + 1e-12).mean())} for level in levels]


def table(summary: dict[str, Any]) -> str:
    """The figures of every space as text."""
    spaces = [line for one in summary["spaces"] for line in ("", *space_lines(one, summary))]
    return "\n".join([*head(summary), *spaces])


def head(summary: dict[str, Any]) -> list[str]:
    settings, reference = summary["settings"], summary["reference"]
    return [
        f"{settings['dataset']}: {budget_in_words(settings)}, scored on {settings['num_validation']:,}",
        f"reference {settings['reference']}: {accuracy_in_words(reference)}, {in_short(reference['flops'])} FLOPs, "
        f"{in_short(reference['parameters'])} parameters",
    ]


def first_line(one: dict[str, Any], summary: dict[str, Any]) -> str:
    """Whether the first configuration of a space matches the reference."""
    if one["first_is_reference"]:
        return f"{one['space']}: the first configuration is the reference"
    interval, difference = one["first_difference_interval"], one["first_difference"]
    around = "" if interval is None else f" ({100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})"
    is_open = interval is not None and interval[0] < -MATCHING < interval[1]
    return (
        f"{one['space']}: first configuration {accuracy_in_words(one['first'])}, {100 * difference:+.1f} points"
        f"{around} from the reference: {'matches' if one['first_matches'] else 'does not match'} within "
        f"{100 * MATCHING:.0f} point{'; to be sure of it, give more --seeds' if is_open else ''}"
    )


def space_lines(one: dict[str, Any], summary: dict[str, Any]) -> list[str]:
    lines = [
        first_line(one, summary),
        f"  {one['networks']} sampled networks in {one['seconds']:.0f} s, {one['diverged']} of which diverged "
        f"(accuracy 0); {one['failed']} others failed; {one['rejected']} draws were rejected, "
        f"{one['repeated']} were repeated",
    ]
    if one["untrained"]:
        lines.append(f"  the time limit was reached: {one['untrained']} networks are missing, rather slow ones")
    if not one["networks"]:
        return lines
    goals, better = one["goals"], one["share_better_interval"]
    lines += [
        f"  accuracy: quartiles {', '.join(map(percent, one['quartiles']))}; best {percent(one['best'])}, "
        f"worst {percent(one['worst'])}",
        f"  better than the reference: {one['better']} of {one['networks']}, {percent(one['share_better'])} "
        f"({range_in_words(better)}); goal {percent(SHARE_GOAL)}: {reached(goals['share'])}",
        f"  median below the reference: {100 * one['median_below_reference']:.1f} points; goal at most "
        f"{100 * MEDIAN_GOAL:.0f}: {reached(goals['median'])}",
        f"  FLOPs: {sizes_in_words(one['flops'])}; goal a factor of {FLOPS_GOAL:.0f}: {reached(goals['flops'])}",
        f"  parameters: {sizes_in_words(one['parameters'])}",
        "  error at most          " + "".join(f"{percent(row['error']):>8}" for row in one["errors"]),
        "  share of the networks  " + "".join(f"{percent(row['share']):>8}" for row in one["errors"]),
    ]
    rows = one["separations"]
    return lines + (separation_lines(rows, one["networks"]) if rows else [])


def separation_lines(rows: Sequence[dict[str, Any]], num_networks: int) -> list[str]:
    num_low = sum(row["p_value"] < 0.05 for row in rows)
    lines = [
        f"  what goes with accuracy, by rank correlation: with {num_networks} networks only strong effects show; of "
        f"{len(rows)} rows {num_low} have p < 0.05, and by chance about {0.05 * len(rows):.0f} would",
        f"  {'correlation':>11} {'p':>7} {'networks':>8} {'low':>7} {'high':>7}  parameter "
        "(mean accuracy at its low and high values)",
    ]
    return lines + [
        f"  {row['correlation']:+11.2f} {row['p_value']:7.4f} {row['num_networks']:8} "
        f"{percent(row['accuracy_low']):>7} {percent(row['accuracy_high']):>7}  {row['name']}"
        for row in rows[:MAX_ROWS]
    ]


def budget_in_words(settings: Mapping[str, Any]) -> str:
    epochs = "1 epoch" if settings["epochs"] == 1 else f"{settings['epochs']} epochs"
    return f"{epochs} of {settings['num_train']:,} images"


def accuracy_in_words(figures: dict[str, Any]) -> str:
    seeds = "1 seed" if figures["seeds"] == 1 else f"{figures['seeds']} seeds"
    interval = figures["interval"]
    around = seeds if interval is None else f"{range_in_words(interval)}, {seeds}"
    return f"{percent(figures['accuracy'])} ({around})"


def range_in_words(interval: Interval) -> str:
    return f"{100 * interval[0]:.1f} to {percent(interval[1])}"


def sizes_in_words(sizes: dict[str, float]) -> str:
    return (
        f"{in_short(sizes['smallest'])} to {in_short(sizes['largest'])}, a factor of {sizes['ratio']:.1f}; "
        f"5 % to 95 %: {in_short(sizes['low'])} to {in_short(sizes['high'])}, {sizes['ratio_low_high']:.1f}"
    )


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def reached(is_reached: bool) -> str:
    return "reached" if is_reached else "not reached"


def in_short(number: float) -> str:
    """A number with three digits and a letter: 1.24 M."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number:.3g}"
