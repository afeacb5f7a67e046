"""Documents, help texts, docstrings and messages contain none of the phrases that a reader has to read twice.

To check more texts, add a function that yields their passages to SOURCES.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.main import get_command

from tuner.cli import app

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Passage:
    """Text of one paragraph, on one line. where: the file and its line, or whatever finds the text."""

    where: str
    text: str


@dataclass(frozen=True)
class Rule:
    """A phrase to avoid. instead: what to write. caught: a sentence with it. allowed: one that only looks like it."""

    phrase: str
    instead: str
    caught: str
    allowed: str


RULES = (
    Rule(
        r"\b(go|goes|going|gone|went) on (with|from|by)\b",
        "resume, continue",
        "A study is gone on with by the same command.",
        "The lights go on and off.",
    ),
    Rule(r"\banew\b", "again, from scratch, restart", "It starts anew.", "A new file is written."),
    Rule(
        r"\b(starts?|started|begins?|begun) (again|over)\b",
        "restart, retry",
        "The trial that was running starts again next time.",
        "Again, the search starts with the baseline.",
    ),
    Rule(
        r"\b(leave|leaves|leaving|left) out\b", "skip, omit, not given", "Left out, it is 10.", "It was left outside."
    ),
    Rule(r"\bmend(s|ed|ing)?\b", "fix", "What a user can mend is one line.", "We recommend the default."),
    Rule(
        r"\b(lies?|lay|lying) (in|on|there|here|among|beside|beyond|where)\b"
        r"|\bwhere (it|they|these|those) lies?\b",
        "is in, contains, its path",
        "It names the file it lies in.",
        "A value lies between 0 and 1.",
    ),
    Rule(
        r"\b(is|are|was|were|be) (all )?said\b|\b(is|are) (then )?told\b|\band (it is )?said\b",
        "is reported, is printed, the error says",
        "Both numbers are said.",
        "The error says which settings differ.",
    ),
    Rule(
        r"\b(who|what|which)ever (needs?|asks?|reads?|measures?|drives?|wants?|has)\b|\bwhoever\b",
        "the caller, callers that",
        "Whoever needs them asks for them.",
        "Whatever the device is, scores are in fp32.",
    ),
    Rule(
        r"\b(is|are|was|were) there (already|before)\b|\bthere already\b|\bis not replaced\b",
        "already exists, will not be overwritten",
        "The file is there already, and is not replaced.",
        "There is already a study of this name.",
    ),
    Rule(
        r"\b(disk|folder|file) that cannot be written\b",
        "read-only",
        "It works on a disk that cannot be written.",
        "A file that cannot be read is reported.",
    ),
    Rule(r"\bwhat to type next\b", "the next commands", "It names what to type next.", "It prints what to do."),
    Rule(
        r"\btakes no \w+ that\b|\bthe record tells\b",
        "rejects ... that do not match",
        "`export` takes no checkpoint that is not what the record tells of.",
        "It takes no time.",
    ),
    Rule(
        r"\brightly\b|\bto the last (image|bit|byte)\b|\bas many rightly\b",
        "correctly, exactly",
        "It must classify as many rightly, to the last image.",
        "The last image is the largest.",
    ),
    Rule(
        r"\bany more\b",
        "no longer",
        "The score is not a sealed one any more.",
        "It does not take any further time.",
    ),
    Rule(
        r"(^|: )(?-i:Of|That) (the|a|an|its|their|one|all)\b|(^|: )Trainings of\b",
        "say what the value is",
        "--seed: Of the split, the sampling and the training.",
        "The mean of the seeds.",
    ),
    Rule(r"\bhowever long\b", "ignore the time limit", "However long it takes.", "However, it takes long."),
    Rule(r"` tells\b", "run ... for an unbiased score", "Then `tuner confirm X` tells.", "A name tells nothing."),
    Rule(
        r"\bha(ve|s) this (CPU|GPU|device|machine) (do|compute|train)\b",
        "not supported on",
        "torch cannot have this CPU do it.",
        "You have this CPU and that GPU.",
    ),
    Rule(
        r"\bplace \d+ of \d+\b|\bwhere \d+ go on\b",
        "ranked 5 of 9; the top 3 continue",
        "The trial is place 5 of 9, where 3 go on.",
        "It has ranked 5 of 9.",
    ),
    Rule(
        r"\b(that|which) are told\b", "listed, reported", "Parameters of a space, that are told.", "Lies that he told."
    ),
    Rule(
        r"^(?-i:Of) (?!\d)",
        "begin with what the value is",
        "Of every parameter that had a choice.",
        "Of 20 trials, one is complete.",
    ),
    Rule(
        r"\b(device|devices|machine|memory|GPU|CPU|runner|step|it) bears?\b",
        "fits into, supports, can have",
        "How many runners a device bears.",
        "The bears of a zoo.",
    ),
    Rule(
        r"\bwhat (\S+ ){1,4}(has |have )?(come|comes|came) to\b",
        "result, summary",
        "What a study has come to.",
        "They came to know what it is.",
    ),
    Rule(
        r"\bthan which\b",
        "better than every smaller one",
        "Those than which none is better.",
        "It is better than it was.",
    ),
    Rule(
        r"\b(is|are) not to be had\b|\b(can|could) (then )?(not )?be had\b",
        "cannot be loaded, is not available",
        "The test part is not to be had here.",
        "It had to be loaded.",
    ),
    Rule(
        r"\bmemory did not suffice\b|\bwhere (even )?(nothing|none|no \w+) (does|is|has|was|can)\b",
        "if there is none; does not fit into memory",
        "None where nothing is limited.",
        "It is None if nothing is limited.",
    ),
)


def passages_of(path: Path) -> Iterator[Passage]:
    """The paragraphs, list items and table rows of a Markdown file, without its blocks of code."""
    where, words, is_code = "", list[str](), False
    for number, line in enumerate([*path.read_text(encoding="utf-8").splitlines(), ""], start=1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
            line = ""
        if is_code:
            continue
        begins = re.match(r"\s*([-*|#>]|\d+\.) ?", line)
        if words and (not line.strip() or begins):
            yield Passage(where, " ".join(words))
            words = []
        if line.strip():
            where = where if words else f"{path.relative_to(ROOT)}:{number}"
            words += line.split()


def document_passages() -> Iterator[Passage]:
    """The passages of every document for people."""
    names = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "studies/README.md")
    for path in (*(ROOT / name for name in names), *sorted(ROOT.glob("docs/*.md"))):
        yield from passages_of(path)


def docstring_passages() -> Iterator[Passage]:
    """The paragraphs of every docstring of the package and its benchmarks, those of constants included."""
    for path in sorted([*ROOT.glob("tuner/**/*.py"), *ROOT.glob("benchmarks/*.py"), *ROOT.glob("examples/*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                where = f"{path.relative_to(ROOT)}:{node.lineno}"
                for paragraph in node.value.value.split("\n\n"):
                    yield Passage(where, " ".join(paragraph.split()))


def help_passages() -> Iterator[Passage]:
    """What `--help` prints of every command, and of each of its arguments and options."""
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        yield Passage(f"tuner {name}", " ".join((command.help or "").split()))
        for parameter in command.params:
            words = " ".join((getattr(parameter, "help", None) or "").split())
            yield Passage(f"tuner {name} {parameter.name}", words)


def message_passages() -> Iterator[Passage]:
    """Messages of the package: its strings of more than three words that are not docstrings."""
    for path in sorted(ROOT.glob("tuner/**/*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            text = _text_of(node)
            if len(text.split()) > 3 and id(node) not in docstrings | parts:
                yield Passage(f"{path.relative_to(ROOT)}:{node.lineno}", " ".join(text.split()))  # type: ignore[attr-defined]


def _text_of(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(_text_of(value) or "0" for value in values)
    return ""


SOURCES: list[Callable[[], Iterator[Passage]]] = [
    document_passages,
    docstring_passages,
    help_passages,
    message_passages,
]
"""Functions that yield the passages to check."""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.instead)
def test_a_rule_catches_its_phrase_and_not_a_sentence_like_it(rule: Rule) -> None:
    assert re.search(rule.phrase, rule.caught, re.IGNORECASE)
    assert not re.search(rule.phrase, rule.allowed, re.IGNORECASE)


def test_no_text_has_a_phrase_that_must_be_read_twice() -> None:
    found = [
        f"{passage.where}: {match.group().strip()!r}: write {rule.instead}"
        for source in SOURCES
        for passage in source()
        for rule in RULES
        if (match := re.search(rule.phrase, passage.text, re.IGNORECASE))
    ]
    assert not found, "\n".join(found)


def test_a_phrase_is_found_across_two_lines_and_not_in_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_plain_english.ROOT", tmp_path)
    path = tmp_path / "README.md"
    path.write_text("# Title\n\nA study is gone\non with later.\n\n```sh\necho anew\n```\n- one\n- two\n")
    assert list(passages_of(path)) == [
        Passage("README.md:1", "# Title"),
        Passage("README.md:3", "A study is gone on with later."),
        Passage("README.md:9", "- one"),
        Passage("README.md:10", "- two"),
    ]
