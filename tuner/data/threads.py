"""Map a function over many small items in threads, with results in order."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tuner.data.dataset import Report
from tuner.hardware import num_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

# One task is a group of items, because handing each small image to a thread costs more than decoding it. Results wait
# in memory for their turn, so the groups in flight bound the memory whatever the number of items.
_GROUP, _BLOCK = 16, 512


def map_in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], *, what: str, report: Report | None
) -> Iterator[Result]:
    """Yield function(item) in the order of `items`; the first error in that order is raised.

    Pillow releases the interpreter lock while it decodes and resizes, so the threads run in parallel.
    """

    def apply(group: Sequence[Item]) -> list[Result]:
        return [function(item) for item in group]

    with ThreadPoolExecutor(max_workers=min(8, num_cores()), thread_name_prefix="decode") as pool:
        for start in range(0, len(items), _BLOCK):
            block = items[start : start + _BLOCK]
            groups = [block[first : first + _GROUP] for first in range(0, len(block), _GROUP)]
            for results in pool.map(apply, groups):
                yield from results
            if report is not None:
                report(what, start + len(block), len(items))
