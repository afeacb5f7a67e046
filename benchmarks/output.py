"""How the benchmarks print: progress line by line, then a result as JSON or as text."""

from __future__ import annotations

import json
from typing import Any

import typer


def say(line: str, as_json: bool) -> None:
    typer.echo(line, err=as_json)


def show(result: dict[str, Any], as_json: bool, *, text: str | None = None) -> None:
    """Print a result: as JSON, as its own text, or a line for each of its figures."""
    typer.echo(json.dumps(result, indent=2) if as_json else text or text_of(result))


def text_of(result: dict[str, Any]) -> str:
    return "\n".join(f"{key:<32} {value}" for key, value in result.items())
