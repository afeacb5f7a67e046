"""The training images of a study as the winner's recipe augments them, for the report."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from tuner.search.record import StudyRecord
from tuner.search.study_backbones import decode_for_network
from tuner.search.study_data import load_study_images
from tuner.training.candidate import Candidate
from tuner.ui.contact_sheet import contact_sheet, draw_sheet


def contact_sheet_uri(record: StudyRecord, candidate: Candidate, *, studies: Path) -> str:
    """Draw the contact sheet of a candidate as a PNG in a data URI.

    Raises TunerError if the study's images are missing or have changed.
    """
    spec, dataset = load_study_images(record, studies=studies)
    dataset = decode_for_network(candidate.architecture, spec, dataset)
    page = draw_sheet(contact_sheet(dataset, candidate, seed=record.settings.seed))
    file = io.BytesIO()
    page.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
