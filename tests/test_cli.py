"""The command line: what it prints, how it exits, and that what goes wrong is one sentence."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from qcnode import cli
from qcnode.artifacts import Artifact, Plane
from qcnode.config import Settings, StateFolder, load
from qcnode.imaging import phantom
from qcnode.imaging.swoop import classic_series, swoop_series, to_bytes
from qcnode.imaging.volume import Volume
from qcnode.ledger.records import Received
from qcnode.ledger.store import Store

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass
class Done:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """The one sentence on the error stream."""
        assert "Traceback" not in self.err
        assert self.err.count("\n") == 1, self.err
        return self.err.strip()


Command = Callable[..., Done]


@pytest.fixture
def qcnode(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Runs the command line here, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QCNODE_CONFIG", raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["qcnode", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, printed.out, printed.err)

    return run


@pytest.fixture(scope="module")
def head() -> Volume:
    return phantom.head(np.random.default_rng(64), Plane.AXIAL)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A configuration whose ledger knows one failed series."""
    with Store.open(StateFolder(folder=tmp_path / "state")) as store:
        one = Received("1.2.3", "1.2", "1.2.3.1", "1.2.840", "1.2.1", "a" * 64, 9, NOW, "SWOOP1", {})
        store.record_instances([one])
        store.mark_ready("1.2.3", 1, "all its frames are there", NOW)
        claim = store.claim(NOW)
        assert claim is not None
        store.fail(claim, "Grading took too long.", NOW, permanent=True)
    config = tmp_path / "site.toml"
    config.write_text(f'[state]\nfolder = "{tmp_path / "state"}"\n')
    return config


@pytest.mark.parametrize("module", ["qcnode.cli", "qcnode.node"])
def test_torch_and_its_company_load_where_they_are_used(module: str) -> None:
    heavy = ["torch", "monai", "torchio", "highdicom"]
    program = f"import sys, {module}; print(*(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == ""


def test_init_writes_the_defaults_with_their_meanings(qcnode: Command, tmp_path: Path) -> None:
    done = qcnode("init")
    assert done.code == 0
    assert "qcnode serve --config qcnode.toml" in done.out
    assert load(tmp_path / "qcnode.toml") == Settings()


def test_init_does_not_overwrite_unless_told(qcnode: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("# mine")
    done = qcnode("init", "mine.toml")
    assert done.code == 2
    assert done.said == "mine.toml is there already; give another path, or --force to overwrite it."
    assert (tmp_path / "mine.toml").read_text() == "# mine"
    assert qcnode("init", "mine.toml", "--force").code == 0
    assert qcnode("init", "no/such/folder.toml").code == 2


@pytest.mark.parametrize("command", [("serve",), ("check",), ("status",), ("retry", "1.2.3"), ("score", ".")])
def test_an_unknown_key_is_named_with_its_nearest(command: tuple[str, ...], qcnode: Command, tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text("[dicom]\nprot = 104\n")
    done = qcnode(*command, "--config", "site.toml")
    assert done.code == 2
    assert done.said == "site.toml: unknown key 'dicom.prot'; the nearest known key is 'port'."


def test_the_environment_names_the_configuration(
    qcnode: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QCNODE_CONFIG", str(tmp_path / "absent.toml"))
    done = qcnode("status")
    assert done.code == 2
    assert done.said.startswith(f"The configuration {tmp_path / 'absent.toml'} cannot be read")


def test_check_finds_all_well(qcnode: Command, tmp_path: Path) -> None:
    entity = AE("ORTHANC")
    entity.add_supported_context(Verification)
    server = entity.start_server(("127.0.0.1", 0), block=False)
    port = server.server_address[1]
    (tmp_path / "site.toml").write_text(
        f'[[destinations]]\nname = "pacs"\nae_title = "ORTHANC"\nhost = "127.0.0.1"\nport = {port}\n'
        '[[alerts]]\nurl = "json://127.0.0.1:9/rescan"\n'
    )
    try:
        done = qcnode("check", "--config", "site.toml", "--json")
    finally:
        server.shutdown()
    findings = json.loads(done.out)
    assert done.code == 0, findings
    subjects = [finding["subject"] for finding in findings]
    assert subjects == ["configuration", "weights", "ledger", "disk", "destination pacs", "alert alert-1"]


def test_check_says_what_to_do_about_each_fault(qcnode: Command, tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else can come to listen there
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        (tmp_path / "site.toml").write_text(
            f'[assessing]\nweights = "nowhere"\n[[alerts]]\nurl = "nonsense"\n[[destinations]]\nname = "pacs"\n'
            f'ae_title = "ORTHANC"\nhost = "127.0.0.1"\nport = {port}\n'
        )
        done = qcnode("check", "--config", "site.toml", "--json")
        plain = qcnode("check", "--config", "site.toml")
    faults = {finding["subject"]: finding["says"] for finding in json.loads(done.out) if not finding["ok"]}
    assert (done.code, plain.code) == (1, 1)
    assert set(faults) == {"weights", "destination pacs", "alert alert-1"}
    assert faults["destination pacs"] == (
        f"ORTHANC at 127.0.0.1:{port} took no association; check that it runs, its host and its port."
    )
    assert "nowhere/manifest.json" in faults["weights"]
    assert plain.out.count("✕") == 3
    assert "Traceback" not in plain.err + done.err


def test_a_destination_that_is_down_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(
        '[[destinations]]\nname = "pacs"\nae_title = "ORTHANC"\nhost = "127.0.0.1"\nport = 1\n'
    )
    command = [sys.executable, "-m", "qcnode", "check", "--config", "site.toml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "took no association" in done.stdout
    assert done.stderr == "", "the library's own words add nothing"


def test_score_grades_files_folders_and_nifti(qcnode: Command, tmp_path: Path, head: Volume) -> None:
    generator = np.random.default_rng(1)
    (tmp_path / "one.dcm").write_bytes(to_bytes(swoop_series(head, patient_id="P1", generator=generator)))
    (tmp_path / "folder").mkdir()
    for number, one in enumerate(classic_series(head, patient_id="P1", generator=generator)):
        (tmp_path / "folder" / f"{number}.dcm").write_bytes(to_bytes(one))
    image = nib.Nifti1Image(np.moveaxis(head.array, 0, -1), head.affine[:, [1, 2, 0, 3]])
    nib.save(image, tmp_path / "scan.nii.gz")
    done = qcnode("score", "one.dcm", "folder", "scan.nii.gz", "--json")
    results = {one["path"]: one for one in json.loads(done.out)}
    assert (done.code, set(results)) == (0, {"one.dcm", "folder", "scan.nii.gz"})
    for one in results.values():
        assert (one["plane"], list(one["artifacts"])) == ("axial", [artifact.value for artifact in Artifact])
    grades = [[a["severity"] for a in one["artifacts"].values()] for one in results.values()]
    assert grades[0] == grades[1] == grades[2], "one scan, whatever its container"
    plain = qcnode("score", "one.dcm")
    assert plain.code == 0
    assert "one.dcm" in plain.out
    assert all(len(line) == 80 for line in plain.out.splitlines())


@pytest.mark.parametrize("path", ["junk.bin", "absent.dcm", "empty"])
def test_score_refuses_what_is_no_scan(path: str, qcnode: Command, tmp_path: Path) -> None:
    (tmp_path / "junk.bin").write_bytes(bytes(range(256)))
    (tmp_path / "empty").mkdir()
    done = qcnode("score", path)
    assert (done.code, done.out) == (2, "")
    assert done.said.startswith(path)
    assert done.said.endswith("give a DICOM file, a folder of them, or a NIfTI file.")


def test_status_shows_what_the_ledger_knows(qcnode: Command, site: Path) -> None:
    done = qcnode("status", "--config", site, "--json")
    shown = json.loads(done.out)
    assert (done.code, shown["states"], shown["deliveries"]) == (0, {"failed": 1}, {})
    (series,) = shown["series"]
    assert (series["series_uid"], series["state"], series["reason"]) == ("1.2.3", "failed", "Grading took too long.")
    plain = qcnode("status", "--config", site)
    assert "failed" in plain.out
    assert "Grading took too long." in plain.out
    assert max(map(len, plain.out.splitlines())) <= 80


def test_status_makes_no_ledger(qcnode: Command, tmp_path: Path) -> None:
    done = qcnode("status")
    assert done.code == 2
    assert done.said.startswith("There is no ledger in qcnode-data; name the configuration")
    assert not (tmp_path / "qcnode-data").exists()


def test_retry_sends_a_failed_series_back_and_says_so(qcnode: Command, site: Path) -> None:
    done = qcnode("retry", "1.2.3", "--config", site)
    assert (done.code, done.out.startswith("Series 1.2.3 is due again")) == (0, True)
    (series,) = json.loads(qcnode("status", "--config", site, "--json").out)["series"]
    assert (series["state"], series["revision"], series["reason"]) == ("ready", 2, None)
    again = qcnode("retry", "1.2.3", "--config", site)
    assert (again.code, "left alone" in again.out) == (0, True)


def test_retry_of_an_unknown_series_fails_in_a_sentence(qcnode: Command, site: Path) -> None:
    done = qcnode("retry", "9.9.9", "--config", site)
    assert done.code == 1
    assert done.said == "The ledger knows no series 9.9.9; `qcnode status` lists those it knows."


@pytest.mark.parametrize(
    "arguments", [("frobnicate",), ("score",), ("retry",), ("status", "--limit", "0"), ("--what",)]
)
def test_usage_errors_exit_with_2_and_no_traceback(arguments: tuple[str, ...], qcnode: Command) -> None:
    done = qcnode(*arguments)
    assert done.code == 2
    assert "Traceback" not in done.err
    assert done.out == ""


def test_debug_shows_where_it_came_from() -> None:
    command = [sys.executable, "-m", "qcnode", "--debug", "score", "absent.dcm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "absent.dcm does not exist" in done.stderr
