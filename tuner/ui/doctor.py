"""Report of `tuner doctor`: device, versions, and every choice of the engine with its times and checks."""

from __future__ import annotations

import platform
from importlib.util import find_spec

import torch
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tuner.architecture.shapes import Shape
from tuner.deliver.export_formats import FORMATS
from tuner.hardware import device_name, memory_bytes, num_cores
from tuner.training.engine_choices import ChoiceVerdict, Measurement
from tuner.training.family_networks import FAMILY_NETWORKS
from tuner.training.timing import BATCH_SIZE, measured_shape
from tuner.versions import package_versions

NARROW = 100
"""Width in columns below which the choices are shown as a list, because a table would break words."""


def doctor_report(measurement: Measurement, shape: Shape, *, kept: str, width: int) -> RenderableType:
    """Return the whole report, which can be attached to a bug report.

    shape: (C, H, W) of the images that it was measured for. kept: where the measurement is cached, or why it is not.
    width: of the terminal, in columns.
    """
    facts = _facts(measurement, shape)
    facts.add_row("kept", kept)
    if measurement.problem:
        facts.add_row("problem", f"the plain step is used, as {measurement.problem}")
    choices: RenderableType = _table(measurement) if width >= NARROW else _list(measurement)
    none = Text("no choices on this device: the plain step") if not measurement.verdicts else choices
    return Group(facts, Text(""), none)


def _facts(measurement: Measurement, shape: Shape) -> Table:
    device = torch.device(measurement.engine.device)
    facts = Table.grid(padding=(0, 2))
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    facts.add_row("device", f"{device} ({device_name(device)}), {memory_bytes(device) / 2**30:.1f} GiB")
    facts.add_row("cores", str(num_cores()))
    facts.add_row("system", platform.platform())
    facts.add_row("versions", versions)
    if device.type == "cuda":
        facts.add_row("cuda", f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")  # type: ignore[no-untyped-call]
    facts.add_row("measured", _measured(measurement.engine.num_threads, shape))
    facts.add_row("runners", f"{measurement.runners.count} ({measurement.runners.why})")
    is_missing = any(find_spec(package) is None for one in FORMATS.values() for package in one.needs)
    facts.add_row("missing", "for other formats of export: pip install 'tuner[export]'" if is_missing else "nothing")
    return facts


def _measured(num_threads: int, shape: Shape) -> str:
    """Describe the training steps that were timed."""
    sizes = ["x".join(map(str, one)) for one in (shape, measured_shape(shape))]
    size = sizes[0] if sizes[0] == sizes[1] else f"{sizes[0]}, at the size of {sizes[1]}"
    threads = f"{num_threads} thread{'s' * (num_threads != 1)}"
    return f"batches of {BATCH_SIZE} images of {size}, {threads}; times are means over {len(FAMILY_NETWORKS)} networks"


def _table(measurement: Measurement) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("choice", "plain", "ms a step", "fast", "ms a step", "taken", "why"):
        table.add_column(name, justify="right" if name == "ms a step" else "left", overflow="fold")
    for verdict in measurement.verdicts:
        plain, fast = _milliseconds(verdict.seconds_plain), _milliseconds(verdict.seconds_fast)
        table.add_row(verdict.name, str(verdict.plain), plain, str(verdict.fast), fast, _taken(verdict), _why(verdict))
    return table


def _list(measurement: Measurement) -> Group:
    lines = []
    for verdict in measurement.verdicts:
        lines.append(Text(f"{verdict.name}: taken {_taken(verdict)} ({_why(verdict)})"))
        plain, fast = _milliseconds(verdict.seconds_plain), _milliseconds(verdict.seconds_fast)
        lines.append(Text(f"  ms a step: {verdict.plain} {plain}, {verdict.fast} {fast}"))
    return Group(*lines)


def _taken(verdict: ChoiceVerdict) -> str:
    return str(verdict.fast if verdict.is_taken else verdict.plain)


def _why(verdict: ChoiceVerdict) -> str:
    if verdict.comes_with:
        return f"comes with {verdict.comes_with}"
    return verdict.problem or "agrees with the plain step"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.2f}"
