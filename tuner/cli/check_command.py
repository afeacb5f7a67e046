"""The command `check`: look at a data set without training on it."""

from __future__ import annotations

import json
from dataclasses import replace

from tuner.cli.options import (
    STUDIES,
    Allow,
    AsJson,
    DataDir,
    Dataset,
    Download,
    Group,
    GroupColumn,
    ImageColumn,
    ImageSize,
    LabelColumn,
    SplitColumn,
    Studies,
    cache_folder,
    parse_allowed,
    parse_image_size,
    plain_console,
    say,
)


def check(
    dataset: Dataset,
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    split_column: SplitColumn = None,
    group_column: GroupColumn = None,
    group: Group = None,
    download: Download = True,
    allow: Allow = None,
    studies: Studies = STUDIES,
    as_json: AsJson = False,
) -> None:
    """Look at a data set before training: duplicates, labels, constant images, class sizes, crops, unused files."""
    from tuner.data.data_checks import refuse_meaningless
    from tuner.data.sealed import check_parts, fix_parts
    from tuner.options import RunOptions, check_options
    from tuner.ui.check_lines import check_lines
    from tuner.ui.console import progress_reporter

    options = RunOptions(
        dataset=dataset,
        data_dir=data_dir,
        image_size=parse_image_size(image_size) if image_size else None,
        image_column=image_column,
        label_column=label_column,
        split_column=split_column,
        group_column=group_column,
        group=group,
        download=download,
        studies=studies,
        allow=parse_allowed(allow),
    )
    check_options(options)
    with cache_folder(studies) as cache, progress_reporter(plain_console(stderr=True), quiet=as_json) as report:
        parts = fix_parts(replace(options.data_spec, cache_dir=cache), report=report)
        checks = check_parts(parts)
        notes = (*parts.development.notes, *parts.development.repairs)
    name = parts.development.name
    if as_json:
        say(json.dumps({"dataset": name, **checks.to_json(), "notes": list(notes)}, indent=2))
    else:
        say("\n".join([*check_lines(checks, name, allowed=options.allow), *notes]))
    refuse_meaningless(checks, name, allowed=options.allow)
