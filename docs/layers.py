"""Draw the layers of the package in docs/architecture.md, from the import contracts in pyproject.toml.

Run it after the contracts have changed, from the root of the checkout: `python docs/layers.py`. A test compares the
drawing with the contracts.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- layers: drawn by docs/layers.py -->", "<!-- end of the layers -->"


def load_contracts(pyproject: Path) -> list[dict[str, Any]]:
    """The import contracts of a pyproject.toml."""
    contracts: list[dict[str, Any]] = tomllib.loads(pyproject.read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    return contracts


def layers_of(contracts: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The modules of each layer, the highest layer first, by their full names."""
    (contract,) = (one for one in contracts if one["type"] == "layers")
    prefix = "".join(f"{package}." for package in contract.get("containers", ()))  # of one package, at most
    return [[prefix + name.strip(" ()") for name in re.split("[:|]", layer)] for layer in contract["layers"]]


def draw(contracts: Sequence[Mapping[str, Any]]) -> str:
    """A Mermaid flowchart: a box for each layer, an arrow to the next lower one, crosses for what is forbidden."""
    layers = layers_of(contracts)
    known = {name for layer in layers for name in layer}
    lines = ["flowchart TB"]
    for number, layer in enumerate(layers, start=1):
        lines.append(f'    subgraph layer{number}[" "]')
        lines += [f'        {_node(name)}["{name}"]' for name in layer]
        lines.append("    end")
    lines += [f"    layer{number} --> layer{number + 1}" for number in range(1, len(layers))]
    for contract in contracts:
        if contract["type"] == "forbidden":
            targets = contract["forbidden_modules"]
            lines += [f'    {_node(name)}(["{name}"])' for name in targets if name not in known]
            lines += [
                f"    {_node(one)} --x {_node(target)}" for one in contract["source_modules"] for target in targets
            ]
    return "\n".join(lines)


def replace_drawing(document: str, drawing: str) -> str:
    """The document with this drawing between its two marks. Raises ValueError where it has no such marks."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document needs the lines {BEGIN!r} and {END!r}, with the drawing between them")
    return f"{before}{begin}\n```mermaid\n{drawing}\n```\n{end}{after}"


def _node(name: str) -> str:
    return name.replace(".", "_")


def main() -> int:
    """Write the drawing into docs/architecture.md."""
    drawing = draw(load_contracts(ROOT / "pyproject.toml"))
    document = replace_drawing(DOCUMENT.read_text(encoding="utf-8"), drawing)
    DOCUMENT.write_text(document, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
