"""Neural architecture search and hyperparameter tuning for image classifiers.

The public names are imported when they are first used, so that `import tuner` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tuner.__about__ import __version__ as __version__

_HOMES = {
    "ActivationBlock": "architecture.blocks",
    "Architecture": "architecture.spec",
    "Candidate": "training.candidate",
    "Checkpoint": "training.checkpoint",
    "Classifier": "deliver.classifier",
    "DataSpec": "data.dataset",
    "EpochResult": "training.results",
    "Evaluation": "deliver.evaluate",
    "Exported": "deliver.export",
    "Head": "architecture.spec",
    "ImageDataset": "data.dataset",
    "ImageParts": "data.image_parts",
    "InputSpec": "architecture.spec",
    "InvertedResidualBlock": "architecture.blocks",
    "PlainBlock": "architecture.blocks",
    "Prediction": "deliver.predict",
    "Recipe": "training.candidate",
    "ResidualBlock": "architecture.blocks",
    "RunOptions": "options",
    "SearchSpace": "space.schema",
    "StudySummary": "search.summary",
    "Trained": "deliver.train_trial",
    "TunerError": "errors",
    "build_model": "architecture.factory",
    "evaluate": "deliver.evaluate",
    "export": "deliver.export",
    "load_checkpoint": "training.checkpoint",
    "load_classifier": "deliver.classifier",
    "load_development": "data.development_part",
    "load_model": "deliver.classifier",
    "load_space": "space.toml_file",
    "load_study": "search.study_lookup",
    "network_cost": "architecture.cost",
    "open_storage": "search.storage",
    "predict": "deliver.predict",
    "resolve": "architecture.trace",
    "run": "pipeline",
    "run_events": "pipeline",
    "suggest": "space.sampling",
    "summarise": "search.summary",
    "trace": "architecture.trace",
    "train": "training.loop",
    "train_trial": "deliver.train_trial",
    "train_trial_events": "deliver.train_trial",
}

if TYPE_CHECKING:
    from tuner.architecture.blocks import ActivationBlock as ActivationBlock
    from tuner.architecture.blocks import InvertedResidualBlock as InvertedResidualBlock
    from tuner.architecture.blocks import PlainBlock as PlainBlock
    from tuner.architecture.blocks import ResidualBlock as ResidualBlock
    from tuner.architecture.cost import network_cost as network_cost
    from tuner.architecture.factory import build_model as build_model
    from tuner.architecture.spec import Architecture as Architecture
    from tuner.architecture.spec import Head as Head
    from tuner.architecture.spec import InputSpec as InputSpec
    from tuner.architecture.trace import resolve as resolve
    from tuner.architecture.trace import trace as trace
    from tuner.data.dataset import DataSpec as DataSpec
    from tuner.data.dataset import ImageDataset as ImageDataset
    from tuner.data.development_part import load_development as load_development
    from tuner.data.image_parts import ImageParts as ImageParts
    from tuner.deliver.classifier import Classifier as Classifier
    from tuner.deliver.classifier import load_classifier as load_classifier
    from tuner.deliver.classifier import load_model as load_model
    from tuner.deliver.evaluate import Evaluation as Evaluation
    from tuner.deliver.evaluate import evaluate as evaluate
    from tuner.deliver.export import Exported as Exported
    from tuner.deliver.export import export as export
    from tuner.deliver.predict import Prediction as Prediction
    from tuner.deliver.predict import predict as predict
    from tuner.deliver.train_trial import Trained as Trained
    from tuner.deliver.train_trial import train_trial as train_trial
    from tuner.deliver.train_trial import train_trial_events as train_trial_events
    from tuner.errors import TunerError as TunerError
    from tuner.options import RunOptions as RunOptions
    from tuner.pipeline import run as run
    from tuner.pipeline import run_events as run_events
    from tuner.search.storage import open_storage as open_storage
    from tuner.search.study_lookup import load_study as load_study
    from tuner.search.summary import StudySummary as StudySummary
    from tuner.search.summary import summarise as summarise
    from tuner.space.sampling import suggest as suggest
    from tuner.space.schema import SearchSpace as SearchSpace
    from tuner.space.toml_file import load_space as load_space
    from tuner.training.candidate import Candidate as Candidate
    from tuner.training.candidate import Recipe as Recipe
    from tuner.training.checkpoint import Checkpoint as Checkpoint
    from tuner.training.checkpoint import load_checkpoint as load_checkpoint
    from tuner.training.loop import train as train
    from tuner.training.results import EpochResult as EpochResult


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tuner' has no attribute {name!r}")
    return getattr(import_module(f"tuner.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
