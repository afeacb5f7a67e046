"""What the tuner finds on this machine: device, versions, every choice of the engine with its times and checks."""

from __future__ import annotations

import platform
from importlib.util import find_spec

import torch
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tuner.hardware import device_name, memory_bytes, num_cores
from tuner.training.choices import Measurement
from tuner.versions import package_versions

OPTIONAL = {"safetensors": "export", "onnx": "export", "onnxscript": "export", "onnxruntime": "export"}
"""Packages that not every command needs, with the extra that brings them."""


def doctor_report(measurement: Measurement) -> RenderableType:
    """The whole report; what one attaches to a report of a fault."""
    device = torch.device(measurement.engine.device)
    facts = Table.grid(padding=(0, 2))
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    facts.add_row("device", f"{device} ({device_name(device)}), {memory_bytes(device) / 2**30:.1f} GiB")
    facts.add_row("cores", str(num_cores()))
    facts.add_row("system", platform.platform())
    facts.add_row("versions", versions)
    if device.type == "cuda":
        facts.add_row("cuda", f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")  # type: ignore[no-untyped-call]
    facts.add_row("runners", f"{measurement.runners.count} ({measurement.runners.why})")
    missing = sorted({extra for package, extra in OPTIONAL.items() if find_spec(package) is None})
    mend = ", ".join(f"pip install 'tuner[{extra}]'" for extra in missing)
    facts.add_row("missing", f"for other formats of export: {mend}" if missing else "nothing")
    choices = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("choice", "plain", "ms a step", "fast", "ms a step", "checked", "taken"):
        choices.add_column(name, justify="right" if name == "ms a step" else "left", overflow="fold")
    for verdict in measurement.verdicts:
        choices.add_row(
            verdict.name,
            str(verdict.plain),
            _milliseconds(verdict.seconds_plain),
            str(verdict.fast),
            _milliseconds(verdict.seconds_fast),
            verdict.problem or "agrees with the plain step",
            str(verdict.fast if verdict.is_taken else verdict.plain),
        )
    none = Text("no choices on this device: the plain step") if not measurement.verdicts else choices
    return Group(facts, Text(""), none)


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.2f}"
