import math

import pytest
import torch

from tests.strategies import make_space
from tuner.architecture.cost import Cost
from tuner.data.stream_limit import StreamLimit
from tuner.errors import SpaceError
from tuner.search.memory_limit import check_batch_sizes, memory_excess

GIB = 2**30
COST = Cost(num_parameters=0, num_buffers=0, flops=0, activations=2**26, widest=1)
"""Of which a training step takes 0.75 GiB for each image of a batch, and scoring next to nothing."""
STREAM = StreamLimit(512 * 2**20, 3 * 512 * 512, torch.device("cpu"))


@pytest.mark.parametrize(
    ("batch_size", "step_bytes", "stream", "reason"),
    [
        (4, math.inf, None, ""),
        (4, 3.1 * GIB, None, ""),
        (4, 2.5 * GIB, None, "its training needs 3.0 GiB of memory, more than the 2.5 allowed"),
        (256, math.inf, STREAM, ""),
        (
            512,
            math.inf,
            STREAM,
            "a batch size of 512 needs 775 MiB of memory to stream images of 768 KiB, "
            "more than the 512 MiB allowed; at most 336 fits",
        ),
        (512, 1.0, STREAM, "its training needs 384.0 GiB of memory, more than the 0.0 allowed"),
    ],
)
def test_a_candidate_beyond_a_limit_is_told_by_how_much(
    batch_size: int, step_bytes: float, stream: StreamLimit | None, reason: str
) -> None:
    excess, said = memory_excess(COST, batch_size, step_bytes=step_bytes, stream=stream)
    assert said == reason
    beyond = [] if math.isinf(step_bytes) else [0.75 * batch_size - step_bytes / GIB]
    beyond += [] if stream is None else [stream.needed_bytes(batch_size) / GIB - 0.5]
    assert excess == (pytest.approx(max(beyond), abs=1e-6) if beyond else None)
    assert (excess is not None and excess > 0) == bool(reason)


def test_a_moving_average_of_the_weights_counts_as_one_more_copy() -> None:
    cost = Cost(GIB, 0, 0, 0, 1)
    without, with_average = (
        memory_excess(cost, 1, step_bytes=0.0, stream=None, has_average=has_average)[0] for has_average in (False, True)
    )
    assert without is not None
    assert with_average == pytest.approx(without + 4)


@pytest.mark.parametrize(
    ("batch_size", "smallest"),
    [(512, 512), ([1024, 512], 512), ({"low": 400, "high": 800}, 400), ([336, 512], None), (336, None)],
)
def test_a_space_without_a_batch_that_can_be_streamed_is_refused(batch_size: object, smallest: int | None) -> None:
    space = make_space(name="wide", recipe={"batch_size": batch_size})
    check_batch_sizes(space, None)
    if smallest is None:
        check_batch_sizes(space, STREAM)
        return
    rule = (
        f"space 'wide': recipe.batch_size: even the smallest is too large: a batch size of {smallest} needs .* 336 fits"
    )
    with pytest.raises(SpaceError, match=rule):
        check_batch_sizes(space, STREAM)
