"""What every room of the tests shares: quiet Optuna, one thread, and torch left as it was found."""

import os
from collections.abc import Iterator

import optuna
import pytest
import torch
from hypothesis import settings

from tests.slow_tests import pytest_addoption as pytest_addoption
from tests.slow_tests import pytest_collection_modifyitems as pytest_collection_modifyitems
from tests.slow_tests import pytest_configure as pytest_configure
from tests.slow_tests import pytest_terminal_summary as pytest_terminal_summary

settings.register_profile("tuner", deadline=None, print_blob=True)
settings.load_profile("tuner")
optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The engine is measured once for all tests and the processes that they start."""
    os.environ["TUNER_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _torch_as_it_was_found() -> Iterator[None]:
    """Training sets threads and denormals for the whole process; no test may see what another has set."""
    _reset_torch()
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)
    _reset_torch()


def _reset_torch() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(False)
