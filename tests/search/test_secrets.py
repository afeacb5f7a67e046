"""Storage URLs in what a user reads: no password and no other secret, wherever they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.conftest import run_tuner
from tuner.cli.options import folder_arguments
from tuner.errors import StudyError
from tuner.options import RunOptions
from tuner.search.secrets import hide_secrets, shown_url
from tuner.search.storage import open_storage

SECRET = "S3cret"
SHOWN = [
    ("postgresql+psycopg://u:S3cret@host:5432/db", "postgresql+psycopg://u:***@host:5432/db"),
    ("postgresql://u:S3cret%2Fx@host/db", "postgresql://u:***@host/db"),
    ("postgresql://u:S3cret/x@host/db", "postgresql://u:***@host/db"),
    ("postgresql://u:S3cret?x#y@host/db", "postgresql://u:***@host/db"),
    ("postgresql://u:x:S3cret@host/db", "postgresql://u:***@host/db"),
    ("postgresql://u:x@S3cret@host/db", "postgresql://***@host/db"),
    ("postgresql://u/x:S3cret@host/db", "postgresql://***@host/db"),
    ("postgresql://u:S3cret@/db?host=here", "postgresql://u:***@/db?host=here"),
    ("postgresql://u@host/db?password=S3cret", "postgresql://u@host/db?password=***"),
    ("postgresql://u@host/db?sslmode=require&PassWd=S3cret", "postgresql://u@host/db?PassWd=***&sslmode=require"),
    ("mysql://u@h/db?sslkey=S3cret&sslpassword=S3cret%20x", "mysql://u@h/db?sslkey=***&sslpassword=***"),
    ("mysql://u@h/db?token=S3cret&token=S3cret2", "mysql://u@h/db?token=***"),
    ("mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3DS3cret", "mssql+pyodbc:///?odbc_connect=***"),
    ("mssql+pyodbc://h/?params=UID%3Dx%3BPWD%3DS3cret", "mssql+pyodbc://h/?params=***"),
    ("sqlite:///a.db?key=S3cret", "sqlite:///a.db?key=***"),
    # What SQLAlchemy cannot parse:
    ("postgresql://u:S3cret@host:port/db", "postgresql://***@host:***/db"),
    ("postgresql://u:S3cret@host:port/db?password=S3cret", "postgresql://***@host:***/db?password=***"),
    ("postgresql://host:S3cret/db", "postgresql://host:***/db"),
    ("postgresql:u:S3cret@host/db", "***@host/db"),
    ("S3cret@host", "***@host"),
]
PLAIN = [
    "sqlite:///studies/tuner.db",
    "sqlite:////a@b/{{x}} y.db",
    "sqlite:///file:x?mode=ro&uri=true",
    "postgresql://host:5432/db",
    "postgresql+psycopg://u@host/db?sslmode=require&connect_timeout=5",
    "mysql://u@h1,h2/db",
    "not a URL",
    "",
]


@pytest.mark.parametrize(("url", "shown"), SHOWN)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert shown_url(url) == shown


@pytest.mark.parametrize("url", PLAIN)
def test_a_url_without_secrets_is_shown_letter_for_letter(url: str) -> None:
    assert shown_url(url) == url
    assert hide_secrets(f"cannot open {url}", url) == f"cannot open {url}"


@pytest.mark.parametrize("url", [url for url, _ in SHOWN])
def test_a_url_in_what_others_say_is_shown_without_its_secrets(url: str) -> None:
    assert SECRET not in hide_secrets(f"no such server: {url}!", url)


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("postgresql://u:S3cret@host/db", "S3cret"),
        ("postgresql://u:S3cret%2Fx@host/db", "S3cret/x"),
        ("postgresql://u:S3cret%2Fx@host/db", "S3cret%2Fx"),
        ("postgresql://u:S3cret%20x@host/db", "S3cret+x"),
        ("postgresql://u:x@S3cret@host/db", "S3cret@host"),
        ("postgresql://u:S3cret@host:port/db", "S3cret"),
        ("postgresql://host:S3cret/db", "S3cret"),
        ("postgresql://u@host/db?password=S3cret", "S3cret"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3DS3cret", "S3cret"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3DS3cret", "DRIVER=x;PWD=S3cret"),
    ],
)
def test_a_secret_in_what_a_driver_says_is_hidden(url: str, secret: str) -> None:
    assert SECRET not in hide_secrets(f'invalid dsn: missing "=" after "{secret}"', url)


@pytest.mark.parametrize(
    "url", [*(url for url, _ in SHOWN if not url.startswith("sqlite")), "postgresql://u:{S3cret}@127.0.0.1:1/db"]
)
def test_a_storage_that_cannot_be_opened_is_named_without_its_secrets(url: str) -> None:
    for existing in (False, True):
        with pytest.raises(StudyError) as caught:
            open_storage(url, existing=existing)
        assert SECRET not in str(caught.value)


def test_what_a_driver_says_is_shown_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ImportError(f"cannot connect with user=u password={SECRET}")

    monkeypatch.setattr("tuner.search.storage.Storage.__init__", refuse)
    with pytest.raises(StudyError, match=r"password=\*\*\*") as caught:
        open_storage(f"postgresql://u:{SECRET}@host/db")
    assert SECRET not in str(caught.value)


def test_a_study_in_memory_is_refused_without_showing_its_key() -> None:
    with pytest.raises(StudyError, match=r"key=\*\*\*") as caught:
        open_storage(f"sqlite:///:memory:?key={SECRET}")
    assert SECRET not in str(caught.value)


def test_options_do_not_show_their_storage() -> None:
    assert SECRET not in repr(RunOptions(storage=f"postgresql://u:{SECRET}@host/db"))


def test_the_next_commands_hide_a_password_and_need_none_that_is_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"postgresql://u:{SECRET}@host/db"
    assert folder_arguments(Path("studies"), url) == " --storage 'postgresql://u:***@host/db'"
    assert folder_arguments(Path("s"), "sqlite:///a.db") == " --studies s --storage sqlite:///a.db"
    monkeypatch.setenv("TUNER_STORAGE", url)
    assert folder_arguments(Path("studies"), url) == ""


@pytest.mark.slow
def test_no_command_of_a_study_prints_a_secret_of_its_storage(tmp_path: Path) -> None:
    """The parameter is none of SQLite's, which ignores it in the name of a file."""
    url = f"sqlite:///file:{tmp_path / 'a.db'}?uri=true&password={SECRET}"
    run = ("run", "--trials", "1", "--epochs", "1", "--workers", "1", "--device", "cpu", "--no-confirm")
    commands = [
        run,
        run,
        ("list",),
        ("show",),
        ("show", "--json"),
        ("report",),
        ("export", "-o", "a.pt"),
        ("show", "x"),
    ]
    outputs = []
    for command in commands:
        done = run_tuner(*command, "--storage", url, cwd=tmp_path)
        assert done.returncode == (2 if command[-1] == "x" else 0), done.stderr
        outputs.append(done.stdout + done.stderr)
    assert not any(SECRET in output for output in outputs)
    assert "password=***" in outputs[0]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("list", "URL"), ("show", "URL"), ("run", "--study", "URL"), ("export", "URL")])
def test_a_url_in_a_wrong_place_is_named_without_its_password(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    url = f"postgresql://u:{SECRET}/x@host/db"
    done = run_tuner(*(url if one == "URL" else one for one in arguments), cwd=tmp_path)
    assert done.returncode == 2
    assert SECRET not in done.stderr


def test_a_storage_may_stand_in_the_environment(tmp_path: Path) -> None:
    environment = {**os.environ, "TUNER_STORAGE": f"nodatabase://u:{SECRET}@host/db"}
    command = [sys.executable, "-m", "tuner", "list"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--storage nodatabase://u:***@host/db" in done.stderr
