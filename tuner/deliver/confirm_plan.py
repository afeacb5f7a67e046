"""How thorough a confirmation is, and what fits into its time: candidates, seeds, and epochs of the final training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tuner.deliver.contenders import Contender
from tuner.deliver.finalists import FinalTraining, is_raced
from tuner.deliver.retraining import makespan
from tuner.search.record import StudyRecord
from tuner.search.trial_record import TrialRecord

NUM_CANDIDATES = NUM_SEEDS = 3
TIME_SHARE = 1 / 3
"""Largest share of the whole run's time that a confirmation takes, unless a full one is requested."""
TIME_SHARE_OF_BUDGET = 1 / 2
"""Share of a run's time budget that is reserved for the confirmation, whose final training is then longer."""
RACE_SHARE = 0.45
"""Largest share of a confirmation's time for the race, if the final training may be longer."""
MAX_EPOCH_FACTOR = 8.0
"""Limit for the epochs of the final training, as a multiple of those in the race."""
SEEDS_KEEP = 0.75
"""More seeds are trained at the end if each keeps at least this share of the epochs that a single seed could have."""
MORE_IMAGES = 1.25
"""Number of train and validation images together, divided by the number of train images, in the default split."""
MARGIN = 0.95
"""Share of the remaining time that a longer final training plans to use, because an estimate may be too low."""


@dataclass(frozen=True)
class ConfirmPlan:
    """How thorough a confirmation is. `seconds` is its time limit; fewer candidates or seeds are tried to keep to it.

    within: description of the time limit. max_epoch_factor: how many times as many epochs as in the race the winner and
    the baseline may train for at the end, if there is time; 1 keeps the epochs of the race.
    """

    num_candidates: int = NUM_CANDIDATES
    num_seeds: int = NUM_SEEDS
    seconds: float = float("inf")
    within: str = "a third of the run"
    max_epoch_factor: float = 1.0


def limit_to_time(
    plan: ConfirmPlan, record: StudyRecord, num_runners: int, *, seconds_left: float = float("inf")
) -> ConfirmPlan:
    """Limit the plan to what is left of the run's budget, or without a budget, to a third of the run's time.

    What is left of a budget is used up: the final training may then have more epochs than the race. num_runners: number
    of runners that share the work.
    """
    if seconds_left < float("inf"):
        return replace(
            plan,
            seconds=max(0.0, seconds_left),
            within="what is left of the budget",
            max_epoch_factor=MAX_EPOCH_FACTOR,
        )
    return replace(plan, seconds=search_seconds(record.trials(), num_runners) * TIME_SHARE / (1 - TIME_SHARE))


def search_seconds(trials: Sequence[TrialRecord], num_runners: int) -> float:
    """Wall time of the search that led to these trials, over all its runs: the time of its busiest runner.

    num_runners: number of runners that share the trials whose runner is not stored.
    """
    seconds: defaultdict[int | None, float] = defaultdict(float)
    for trial in trials:
        seconds[trial.runner] += trial.seconds
    unsaid = seconds.pop(None, 0.0)
    return max(seconds.values(), default=0.0) + unsaid / num_runners


def affordable(
    retrained: Sequence[Contender], baseline: Contender | None, plan: ConfirmPlan, *, num_runners: int
) -> tuple[int, int, list[str]]:
    """Return the largest numbers of candidates and seeds that fit into the time, at the search's pace; at least one.

    retrained: the candidates that the plan asks for, the best first. Two seeds have the highest priority, because a
    single seed does not show how much seeds differ. Then come two candidates, because one leaves nothing to choose.
    After that, seeds come before candidates: they make means more precise and show better how much seeds differ.

    If the final training may be longer, the race gets at most RACE_SHARE of the time, and the final training needs time
    for one seed only.
    """
    most = len(retrained)
    forms = [(candidates, seeds) for seeds in range(plan.num_seeds, 0, -1) for candidates in range(most, 0, -1)]
    forms.sort(key=lambda form: (min(form[1], 2), min(form[0], 2), form[1], form[0]), reverse=True)
    is_longer = plan.max_epoch_factor > 1
    of_baseline = 0.0 if baseline is None else baseline.seconds
    for num_candidates, num_seeds in forms:
        contenders = {one.trial.number: one for one in retrained[:num_candidates]}
        longest = max(one.seconds for one in contenders.values())
        if baseline is not None:
            contenders.setdefault(baseline.trial.number, baseline)
        again = sum(one.seconds for one in contenders.values()) if is_raced([*contenders.values()], num_seeds) else 0.0
        race = num_seeds * again / min(num_runners, num_seeds * len(contenders))
        num_final = 1 if is_longer else num_seeds
        final = num_final * MORE_IMAGES * (longest + of_baseline) / min(num_runners, num_seeds * len(contenders))
        if race + final <= plan.seconds and (not is_longer or race <= RACE_SHARE * plan.seconds):
            why = f"to finish within {plan.within}"
            break
    else:
        why = f"the minimum, although it takes longer than {plan.within}"
    if (num_candidates, num_seeds) == (most, plan.num_seeds):
        return num_candidates, num_seeds, []
    note = (
        f"confirmed with {num_candidates} of {most} candidates and {num_seeds} of {plan.num_seeds} seeds, "
        f"{why}; `tuner confirm --full` uses all of them"
    )
    return num_candidates, num_seeds, [note]


def plan_final(
    finalists: Sequence[Contender], plan: ConfirmPlan, num_seeds: int, *, spent: float, num_runners: int
) -> FinalTraining:
    """Return the number of seeds and the epochs of the final training that the remaining time suffices for.

    At least one seed is trained, for at least as many epochs as in the race. Epochs come before seeds, because they
    improve the delivered network. More seeds are trained if each keeps SEEDS_KEEP of the epochs that a single one could
    have. That is often so, because a second seed can run while another runner still trains the slower network.
    """
    left = max(0.0, plan.seconds - spent)
    left *= MARGIN if plan.max_epoch_factor > 1 else 1.0

    def factor(number: int) -> float:
        seconds = [MORE_IMAGES * one.seconds for one in finalists for _ in range(number)]
        needed = makespan(seconds, num_runners)
        return plan.max_epoch_factor if needed == 0 else min(plan.max_epoch_factor, left / needed)

    alone = factor(1)
    enough = max(1.0, SEEDS_KEEP * alone)
    number = next((number for number in range(num_seeds, 1, -1) if factor(number) >= enough), 1)
    return FinalTraining(number, max(1.0, factor(number)))
