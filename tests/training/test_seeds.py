from hypothesis import given
from hypothesis import strategies as st

from tuner.training.seeds import derive_seed

parts = st.lists(st.integers() | st.text(alphabet="abc123"), min_size=1, max_size=4)


def test_a_seed_is_the_same_on_every_machine() -> None:
    # A change here makes every stored study go on differently from how it began.
    assert derive_seed(0, "sampler", 3) == 1644599917966982697


@given(parts)
def test_a_seed_is_one_that_torch_takes(parts: list[int | str]) -> None:
    assert 0 <= derive_seed(*parts) < 2**63


def test_seeds_for_different_purposes_differ() -> None:
    seeds = [
        derive_seed(*parts)
        for parts in [(0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1), (0, "a1"), (0, "a", 11), (0, "a", 1, 1)]
    ]
    assert len(set(seeds)) == len(seeds)
