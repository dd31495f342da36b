"""`qcnode token`: a token is shown once, kept as a digest, and gone when it is removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_accounts import PASSWORD, Run, qcnode  # noqa: F401 - a fixture

from qcnode.config import StateFolder
from qcnode.ledger.people import Person
from qcnode.ledger.store import Store
from qcnode.passwords import digest
from qcnode.people import Role


def holder(folder: Path, token: str) -> Person | None:
    with Store.open(StateFolder(folder=folder / "qcnode-data")) as store:
        return store.tokens.holder(digest(token))


def test_a_token_is_made_listed_and_removed(
    qcnode: Run,  # noqa: F811
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert "There are no tokens" in qcnode("token", "list")[1]
    with caplog.at_level("DEBUG"):
        code, token, said = qcnode("token", "add", "RIS", "--role", "technologist")
    token = token.strip()
    assert code == 0
    assert token.startswith("qcnode_")
    assert len(token) > 40
    assert "not shown again" in said
    assert token not in caplog.text
    assert "token_added role=technologist" in caplog.text
    found = holder(tmp_path, token)
    assert found is not None
    assert (found.name, found.role) == ("ris", Role.TECHNOLOGIST)
    assert holder(tmp_path, token[:-1]) is None
    assert token.encode() not in (tmp_path / "qcnode-data" / "ledger.sqlite3").read_bytes()
    assert "ris" in qcnode("token", "list")[1]
    assert qcnode("token", "remove", "ris")[0] == 0
    assert holder(tmp_path, token) is None


def test_a_token_and_a_user_never_have_the_same_name(qcnode: Run) -> None:  # noqa: F811
    assert qcnode("token", "add", "ris")[0] == 0
    for again in (("token", "add", "ris"), ("user", "add", "ris")):
        code, _, said = qcnode(*again, typed=f"{PASSWORD}\n")
        assert code == 2
        assert "choose another name" in said.replace("\n", " ")
    assert qcnode("token", "remove", "nobody")[0] == 2
    assert qcnode("token", "add", "a b")[0] == 2
