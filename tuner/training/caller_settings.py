"""Use torch's own default settings while tuner's code runs, and restore the calling program's settings in between.

Default dtype and device, gradient mode, inference mode, autocast, precision, threads and random state belong to a
process or a thread, and the calling program may have changed any of them. With other settings than torch's defaults,
networks fail or get other results. A generator restores the caller's settings whenever it yields.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_FLAGS: Mapping[str, tuple[Any, str, bool]] = {
    "cudnn.enabled": (torch.backends.cudnn, "enabled", True),
    "cudnn.benchmark": (torch.backends.cudnn, "benchmark", False),
    "cudnn.deterministic": (torch.backends.cudnn, "deterministic", False),
    "mkldnn.enabled": (torch.backends.mkldnn, "enabled", True),
    "mkldnn.deterministic": (torch.backends.mkldnn, "deterministic", False),
    "fill_uninitialized_memory": (torch.utils.deterministic, "fill_uninitialized_memory", True),
}
"""Flags of torch: the object and attribute that hold each flag, and torch's default."""
_PRECISIONS: Mapping[str, Any] = {
    "all": torch.backends,
    "cudnn": torch.backends.cudnn,
    "mkldnn": torch.backends.mkldnn,
    "cuda.matmul": torch.backends.cuda.matmul,
    "cudnn.conv": torch.backends.cudnn.conv,  # type: ignore[attr-defined]
    "cudnn.rnn": torch.backends.cudnn.rnn,
    "mkldnn.matmul": torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]
    "mkldnn.conv": torch.backends.mkldnn.conv,  # type: ignore[attr-defined]
    "mkldnn.rnn": torch.backends.mkldnn.rnn,  # type: ignore[attr-defined]
}
"""Objects of torch that hold the internal precision of fp32 operations, from the most general to the most specific."""
_DEFAULT_PRECISIONS = dict.fromkeys(_PRECISIONS, "none") | {"cudnn.conv": "tf32", "cudnn.rnn": "tf32"}


@dataclass(frozen=True, eq=False)
class _Settings:
    """Settings of a process that torch has no context manager for. The defaults are torch's own.

    matmul_precision, cudnn_tf32: settings of torch's older interface; None if the newer one, `precisions`, has values
    that the older one cannot express. deterministic: the two arguments of torch.use_deterministic_algorithms.
    num_threads, random_states: None leaves them unchanged; random_states has the CPU's first, then every GPU's.
    """

    dtype: torch.dtype = torch.float32
    matmul_precision: str | None = "highest"
    cudnn_tf32: bool | None = True
    precisions: Mapping[str, str] = field(default_factory=lambda: _DEFAULT_PRECISIONS)
    flags: Mapping[str, bool] = field(default_factory=lambda: {name: plain for name, (*_, plain) in _FLAGS.items()})
    deterministic: tuple[bool, bool] = (False, False)
    flushes_denormals: bool = False
    num_threads: int | None = None
    random_states: tuple[Tensor, ...] | None = None


class _OwnSettings:
    """Switches between tuner's settings and those of the calling program, any number of times."""

    def __init__(self) -> None:
        self._own = _Settings()

    @contextmanager
    def here(self) -> Iterator[None]:
        """Use tuner's settings within the block.

        They are torch's defaults at first, and later the values at the end of the last block.
        """
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.set_grad_enabled(True))
            stack.enter_context(torch.autograd.set_detect_anomaly(False))
            for device_type in ("cpu", "cuda", "mps"):
                if torch.is_autocast_enabled(device_type):
                    stack.enter_context(torch.autocast(device_type, enabled=False))
            if torch.get_default_device().type != "cpu":
                stack.enter_context(torch.device("cpu"))
            host = _settings()
            _apply(self._own)
            try:
                yield
            finally:
                self._own = _settings()
                _apply(host)


def with_own_settings(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorate a function so that it runs with torch's default settings, whatever the calling program has set."""

    @wraps(function)
    def with_them(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with _OwnSettings().here():
            return function(*args, **kwargs)

    return with_them


def generates_with_own_settings(
    function: Callable[Arguments, Generator[Result]],
) -> Callable[Arguments, Generator[Result]]:
    """Decorate a generator function so that it runs with torch's defaults; each yield restores the caller's."""

    @wraps(function)
    def with_them(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Generator[Result]:
        settings, events = _OwnSettings(), function(*args, **kwargs)
        try:
            while True:
                with settings.here():
                    try:
                        event = next(events)
                    except StopIteration:
                        return
                yield event
        finally:
            with settings.here():
                events.close()

    return with_them


def _settings() -> _Settings:
    """Return the current settings."""
    random_states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        random_states += torch.cuda.get_rng_state_all()
    return _Settings(
        dtype=torch.get_default_dtype(),
        matmul_precision=_readable(torch.get_float32_matmul_precision),
        cudnn_tf32=_readable(lambda: bool(torch.backends.cudnn.allow_tf32)),
        precisions={name: place.fp32_precision for name, place in _PRECISIONS.items()},
        flags={name: getattr(place, attribute) for name, (place, attribute, _) in _FLAGS.items()},
        deterministic=(
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        flushes_denormals=sys.float_info.min * 0.5 == 0.0,  # torch does not say
        num_threads=torch.get_num_threads(),
        random_states=tuple(random_states),
    )


def _apply(settings: _Settings) -> None:
    torch.set_default_dtype(settings.dtype)
    torch.set_float32_matmul_precision(settings.matmul_precision or "highest")
    torch.backends.cudnn.allow_tf32 = settings.cudnn_tf32 is not False
    for name, place in _PRECISIONS.items():
        if place.fp32_precision != settings.precisions[name]:
            place.fp32_precision = settings.precisions[name]
    for name, (place, attribute, _) in _FLAGS.items():
        if getattr(place, attribute) != settings.flags[name]:
            setattr(place, attribute, settings.flags[name])
    enabled, warn_only = settings.deterministic
    torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
    torch.set_flush_denormal(settings.flushes_denormals)
    if settings.num_threads is not None and settings.num_threads != torch.get_num_threads():
        torch.set_num_threads(settings.num_threads)
    if settings.random_states is not None:
        of_cpu, *of_gpus = settings.random_states
        torch.set_rng_state(of_cpu)
        if of_gpus:
            torch.cuda.set_rng_state_all(of_gpus)


def _readable(read: Callable[[], Result]) -> Result | None:
    """Read a setting of torch's older interface; None if the newer one has a value that it cannot express."""
    try:
        return read()
    except RuntimeError:
        return None
