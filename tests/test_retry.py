"""Dead letters on the command line: seen, sent again, and copied with the rest of the ledger."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qcnode import cli
from qcnode.config import StateFolder
from qcnode.errors import ConfigError
from qcnode.ledger.records import Forwarding, Received
from qcnode.ledger.store import Store
from qcnode.states import DeliveryState

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SERIES = "1.2.3"


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    """A ledger with two images that one destination refused."""
    state = StateFolder(folder=tmp_path / "state")
    with Store.open(state) as store:
        for number in (1, 2):
            one = Received(SERIES, "1.2", f"{SERIES}.{number}", "1.2.840", "1.2.1", "a" * 64, 9, NOW, "SWOOP1", {})
            store.record_instances([one])
        store.mark_ready(SERIES, 1, "quiet", NOW, [Forwarding("pacs", "PACS")])
        for due in store.deliveries.due("pacs", NOW):
            store.deliveries.mark_dead(due.id, "The peer refused it (0xC000); see its log.", NOW)
    (tmp_path / "site.toml").write_text(f'[state]\nfolder = "{state.folder}"\n')
    return state


def run(state: StateFolder, *arguments: str) -> str:
    done = CliRunner().invoke(cli.app, [*arguments, "--config", str(state.folder.parent / "site.toml")])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def counts(state: StateFolder) -> dict[str, int]:
    with Store.open(state) as store:
        return {word.value: count for word, count in store.deliveries.counts().items() if count}


def test_status_shows_dead_letters_and_the_way_back(state: StateFolder) -> None:
    shown = run(state, "status")
    assert "Dead: 2 × images of …1.2.3 to pacs: The peer refused it (0xC000)" in shown
    assert "qcnode retry --dead" in shown
    printed = json.loads(run(state, "status", "--json"))
    assert [(one["count"], one["series_uid"]) for one in printed["dead_letters"]] == [(2, SERIES)]
    assert printed["deliveries"] == {"dead": 2}
    assert printed["counters"]["dead"] == 2
    assert printed["counters"]["instances"] == 2


def test_all_dead_letters_go_on_their_way_again(state: StateFolder) -> None:
    assert "2 deliveries are due again" in run(state, "retry", "--dead")
    assert counts(state) == {DeliveryState.PENDING.value: 2}
    assert "There are no dead letters" in run(state, "retry", "--dead")


def test_those_of_one_series_do_too(state: StateFolder) -> None:
    assert f"Series {SERIES} is due again" in run(state, "retry", SERIES)
    assert counts(state) == {DeliveryState.PENDING.value: 2}


@pytest.mark.parametrize("arguments", [("retry",), ("retry", SERIES, "--dead")])
def test_one_or_all_must_be_said(state: StateFolder, arguments: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="--dead for all"):
        run(state, *arguments)
    assert counts(state) == {DeliveryState.DEAD.value: 2}


def test_a_backup_says_what_it_holds_and_goes_where_it_is_told(state: StateFolder, tmp_path: Path) -> None:
    file = tmp_path / "b.tar"
    assert "1 series, 0 documents" in run(state, "backup", str(file))
    assert file.stat().st_size > 0
    with pytest.raises(ConfigError, match="is there already"):
        run(state, "backup", str(file))
