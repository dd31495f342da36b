"""`qcnode user`: accounts come, are listed and go; their passwords are kept as hashes alone."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qcnode import cli
from qcnode.clock import utc_now
from qcnode.config import StateFolder
from qcnode.errors import ConfigError
from qcnode.ledger.store import Store
from qcnode.passwords import LONGEST, hashed, is_right
from qcnode.people import Role

PASSWORD = "correct horse battery"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def qcnode(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QCNODE_CONFIG", raising=False)

    def run(*arguments: str, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["qcnode", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(str(ended.value.code)), printed.out, printed.err

    return run


def people(folder: Path) -> list[tuple[str, Role]]:
    with Store.open(StateFolder(folder=folder / "qcnode-data")) as store:
        return [(person.name, person.role) for person in store.people.all()]


def test_a_user_is_added_listed_and_removed(qcnode: Run, tmp_path: Path) -> None:
    assert "There are no users" in qcnode("user", "list")[1]
    assert qcnode("user", "add", "Mira.K", typed=f"{PASSWORD}\n")[0] == 0
    assert qcnode("user", "add", "jo", "--role", "viewer", typed=f"{PASSWORD}\n")[0] == 0
    assert people(tmp_path) == [("jo", Role.VIEWER), ("mira.k", Role.TECHNOLOGIST)]
    listed = qcnode("user", "list")[1]
    assert "mira.k" in listed
    assert "technologist" in listed
    ledger = (tmp_path / "qcnode-data" / "ledger.sqlite3").read_bytes()
    assert PASSWORD.encode() not in ledger
    assert qcnode("user", "remove", "MIRA.K")[0] == 0
    assert people(tmp_path) == [("jo", Role.VIEWER)]


def test_a_password_and_a_role_are_changed_in_place(qcnode: Run, tmp_path: Path) -> None:
    qcnode("user", "add", "mira", typed=f"{PASSWORD}\n")
    with Store.open(StateFolder(folder=tmp_path / "qcnode-data")) as store:
        before = store.people.password_hash("mira")
        assert before is not None
        assert store.people.log_in("mira", before, "d" * 64, utc_now())
        assert qcnode("user", "role", "Mira", "admin")[0] == 0
        person = store.people.logged_in("d" * 64, utc_now())
        assert person is not None
        assert person.role is Role.ADMIN, "at once"
        assert qcnode("user", "password", "mira", typed="another horse battery\n")[0] == 0
        assert store.people.logged_in("d" * 64, utc_now()) is None, "whoever knew the old one is out"
        assert is_right("another horse battery", store.people.password_hash("mira"))
        kinds = [(event.kind, event.detail) for event in store.overview.events(2)]
    assert kinds == [
        ("user_password", {"role": "admin", "user": "mira"}),
        ("user_role", {"from": "technologist", "to": "admin", "user": "mira"}),
    ]


@pytest.mark.parametrize(
    ("arguments", "typed", "said"),
    [
        (("add", "mira"), "short\n", "A password has 10 to 256 characters"),
        (("add", "mira"), "", "A password has 10 to 256 characters"),
        (("add", "mira k"), f"{PASSWORD}\n", "1 to 40 letters"),
        (("add", "<b>"), f"{PASSWORD}\n", "1 to 40 letters"),
        (("add", "jo"), f"{PASSWORD}\n", "There is a user 'jo' already"),
        (("remove", "mira"), "", "There is no user 'mira'"),
        (("role", "mira", "admin"), "", "There is no user 'mira'"),
        (("password", "mira"), f"{PASSWORD}\n", "There is no user 'mira'"),
        (("password", "jo"), "short\n", "A password has 10 to 256 characters"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    qcnode: Run, tmp_path: Path, arguments: tuple[str, ...], typed: str, said: str
) -> None:
    qcnode("user", "add", "jo", typed=f"{PASSWORD}\n")
    code, _, error = qcnode("user", *arguments, typed=typed)
    assert code == 2
    assert said in error.replace("\n", " ")
    assert "Traceback" not in error
    assert people(tmp_path) == [("jo", Role.TECHNOLOGIST)]


def test_neither_the_name_nor_the_password_is_logged(
    qcnode: Run, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level("DEBUG"):
        qcnode("user", "add", "mira", typed=f"{PASSWORD}\n")
        qcnode("user", "remove", "mira")
    assert "user_added role=technologist" in caplog.text
    assert "user_removed role=technologist" in caplog.text
    assert "mira" not in caplog.text.replace(str(tmp_path), "")
    assert PASSWORD not in caplog.text


def test_only_the_password_itself_is_right() -> None:
    kept = hashed(PASSWORD)
    assert kept.startswith("$argon2id$")
    assert hashed(PASSWORD) != kept, "each has a salt of its own"
    assert is_right(PASSWORD, kept)
    for wrong in ("", PASSWORD[:-1], PASSWORD + " ", PASSWORD.upper()):
        assert not is_right(wrong, kept)
    assert not is_right("the password of nobody", None)
    assert not is_right(PASSWORD, "no hash")
    longest = "x" * LONGEST
    assert not is_right(longest + "y", hashed(longest))
    with pytest.raises(ConfigError, match="choose another"):
        hashed(longest + "y")
