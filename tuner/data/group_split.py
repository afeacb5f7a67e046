"""Choose whole groups of images for one side of a split, stratified as well as the groups allow.

Groups are tried in a given order, and a group is taken if it brings the numbers of chosen images of each class closer
to the wanted ones. A class that then has no chosen image gets the group that fits best. scikit-learn's
StratifiedGroupKFold makes folds of equal size only, of which one class with two groups would allow no more than two.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tuner.errors import DataError

_ATTEMPTS = 20
Order = Callable[[int], NDArray[np.int64]]
"""The order in which groups are tried, by number of the attempt."""


def choose_groups(
    labels_N: NDArray[np.int64],
    groups_N: NDArray[np.int64],
    class_names: Sequence[str],
    *,
    total: int,
    order: Order,
    num_left: int = 1,
) -> NDArray[np.int64]:
    """Choose rows of whole groups, about `total` of them, and return them in ascending order.

    groups_N: number of each row's group, from 0. Every class has chosen rows, and `num_left` groups or more besides.
    Raises DataError if a class has too few groups for that, or if no attempt succeeds.
    """
    counts_GK = np.zeros((groups_N.max() + 1, len(class_names)), dtype=np.int64)
    np.add.at(counts_GK, (groups_N, labels_N), 1)
    num_groups_K = (counts_GK > 0).sum(0)
    for name, num_groups in zip(class_names, num_groups_K.tolist(), strict=True):
        if num_groups < num_left + 1:
            raise DataError(
                f"a class must have images in at least {num_left + 1} groups to be split; {name!r} has them in "
                f"{num_groups}: add groups, or remove the class or the groups"
            )
    for attempt in range(_ATTEMPTS):
        chosen = _choose(counts_GK, order(attempt), total=total, num_left=num_left)
        if chosen is not None:
            return np.flatnonzero(np.isin(groups_N, chosen)).astype(np.int64)
    raise DataError(
        f"every class must have images on both sides of a split; the {len(counts_GK):,} groups allow none that was "
        f"found in {_ATTEMPTS} attempts: add groups, or make them smaller"
    )


def seeded_order(num_groups: int, seed: int) -> Order:
    """Return random orders of the groups, the same in every version (see choose_stratified)."""

    def order(attempt: int) -> NDArray[np.int64]:
        raw_G = np.random.PCG64(seed % 2**64).random_raw(num_groups * (attempt + 1))[-num_groups:]
        return np.argsort(raw_G, kind="stable")

    return order


def _choose(counts_GK: NDArray[np.int64], order_G: NDArray[np.int64], *, total: int, num_left: int) -> list[int] | None:
    """Return the chosen groups; None if a class would have none."""
    wanted_K = total * counts_GK.sum(0) / counts_GK.sum()
    num_left_K = (counts_GK > 0).sum(0)
    chosen, chosen_K = list[int](), np.zeros_like(wanted_K)

    def distance(counts_K: NDArray[np.float64]) -> float:
        return float(((counts_K - wanted_K) ** 2 / wanted_K).sum())

    def may_be_taken(group: int) -> bool:
        return bool((num_left_K[counts_GK[group] > 0] > num_left).all())

    def take(group: int) -> None:
        nonlocal chosen_K, num_left_K
        chosen.append(group)
        chosen_K = chosen_K + counts_GK[group]
        num_left_K = num_left_K - (counts_GK[group] > 0)

    for group in order_G.tolist():
        if distance(chosen_K + counts_GK[group]) < distance(chosen_K) and may_be_taken(group):
            take(group)
    for label in np.argsort((counts_GK > 0).sum(0), kind="stable"):
        if chosen_K[label] == 0:
            fitting = [group for group in order_G.tolist() if counts_GK[group, label] and may_be_taken(group)]
            if not fitting:
                return None
            take(min(fitting, key=lambda group: distance(chosen_K + counts_GK[group])))
    return chosen
