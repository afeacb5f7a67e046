"""The references of references.toml: for each data set, the network and recipe that search spaces are compared with."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tuner.architecture.spec import InputSpec
from tuner.errors import DataError
from tuner.space.sampling import candidate_from, first_params
from tuner.space.schema import SearchSpace
from tuner.space.toml_file import parse_space
from tuner.training.candidate import Candidate

FILE = Path(__file__).with_name("references.toml")


def load_references(path: Path = FILE) -> dict[str, SearchSpace]:
    """Each reference as a space whose first configuration it is, by its name. Raises SpaceError for a broken table."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    return {name: parse_space({"name": name, **table}, origin=f"{path}: {name}") for name, table in tables.items()}


def choose_reference(name: str) -> SearchSpace:
    """The reference with a name, which is usually that of the data set. Raises DataError if there is none."""
    references = load_references()
    if name not in references:
        raise DataError(
            f"a reference is one of {', '.join(sorted(references))} (benchmarks/references.toml), got {name!r}: "
            "give one of these as --reference"
        )
    return references[name]


def reference_candidate(reference: SearchSpace, input_spec: InputSpec, *, epochs: int) -> Candidate:
    """The network and recipe of a reference, for images of this shape."""
    return candidate_from(first_params(reference)[0], reference, input_spec, epochs=epochs)
