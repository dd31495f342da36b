"""Weights on trial: they grade what the active ones graded, later, and nothing that is reported knows of it."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chance_weights import write_chance_weights
from page_cases import markup, served
from sklearn.metrics import cohen_kappa_score

from qcnode import cli, node, worker
from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.comparison import rows, to_json, verdicts
from qcnode.config import Assessing, Dicom, Settings, StateFolder, Web, load
from qcnode.errors import ConfigError, TransientError
from qcnode.imaging import phantom
from qcnode.imaging.swoop import swoop_series, to_bytes
from qcnode.intake.spool import Spool
from qcnode.ledger.models import Series
from qcnode.ledger.store import Store
from qcnode.shadow.promotion import promote, swapped
from qcnode.shadowing import Trial, shadow_once
from qcnode.steps import adopt
from qcnode.verdict import Assessment, Decision, Grade, verdict
from qcnode.worker import Job, Outcome, score

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chance_weights(tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("weights") / "new", "new")


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    head = phantom.head(np.random.default_rng(3), Plane.AXIAL)
    return [
        to_bytes(swoop_series(head, patient_id="P", generator=np.random.default_rng(n), study_uid="2.25.9"))
        for n in range(4)
    ]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=StateFolder(folder=tmp_path / "state"))


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with Store.open(settings.state) as opened:
        yield opened


@pytest.fixture
def spool(settings: Settings, store: Store) -> Spool:
    return Spool(settings.state.folder)


def said(*severities: int, ensemble: str) -> Assessment:
    """Grades in the order of Artifact; what is not given is none."""
    given = dict(zip(Artifact, severities, strict=False))
    probabilities = ((0.9, 0.1, 0.0), (0.1, 0.8, 0.1), (0.0, 0.1, 0.9))
    grades = {a: Grade(Severity(given.get(a, 0)), probabilities[given.get(a, 0)]) for a in Artifact}
    return Assessment(verdict(grades), "1.2.3", Plane.AXIAL, grades, ensemble)


def arrived(store: Store, spool: Spool, image: bytes) -> str:
    from qcnode.intake.facts import read_facts

    facts = read_facts(image)
    spool.put(image, facts.series_instance_uid, facts.sop_instance_uid)
    adopt(store, spool, NOW)
    return facts.series_instance_uid


def graded(store: Store, uid: str, *severities: int, revision: int = 1) -> None:
    store.mark_ready(uid, revision, "whole", NOW)
    claim = store.claim(NOW)
    assert claim is not None
    assert store.finish(claim, said(*severities, ensemble="old"), [], [], NOW)


def trial(*answers: Assessment | BaseException, ensemble: str = "new") -> tuple[Trial, list[Job]]:
    left, jobs = list(answers), list[Job]()

    def answer(job: Job) -> Assessment:
        jobs.append(job)
        one = left.pop(0)
        if isinstance(one, BaseException):
            raise one
        return one

    return Trial(ensemble, Assessing(), answer, lambda: None), jobs


def seen(series: Series | None) -> tuple[Any, ...]:
    """All that a person, a report or a monitor is told of a series."""
    assert series is not None
    return (
        *(series.state, series.revision, series.reason, series.attempts),
        [
            (one.decision, one.reasons, one.ensemble, [(s.artifact, s.severity, s.p0, s.p1, s.p2) for s in one.scores])
            for one in series.assessments
        ],
    )


def test_each_scan_is_graded_once_the_newest_first_and_what_is_reported_stays(
    store: Store, spool: Spool, settings: Settings, images: list[bytes]
) -> None:
    uids = [arrived(store, spool, image) for image in images[:3]]
    for uid in uids:
        graded(store, uid, 2)
    before = [seen(store.overview.detail(uid)) for uid in uids]
    counted = store.overview.counters()
    new, jobs = trial(*[said(0, 1, ensemble="new")] * 3)
    done = [shadow_once(store, spool, new, settings, lambda: NOW) for _ in range(4)]
    assert done == [True, True, True, False]
    data_sets = [data[128:] for job in jobs for data in job.instances]  # the spool seals them in the preamble
    assert data_sets == [image[128:] for image in reversed(images[:3])]
    assert [seen(store.overview.detail(uid)) for uid in uids] == before
    assert store.overview.counters() == counted
    assert store.overview.events(1)[0].detail == {"ensemble": "new", "revision": 1}
    other, _ = trial(said(ensemble="other"), ensemble="other")
    assert shadow_once(store, spool, other, settings, lambda: NOW), "another ensemble begins anew"


def test_nothing_is_begun_while_a_series_arrives_or_waits_for_its_verdict(
    store: Store, spool: Spool, settings: Settings, images: list[bytes]
) -> None:
    graded(store, arrived(store, spool, images[0]), 1)
    waiting = arrived(store, spool, images[1])
    new, jobs = trial(said(ensemble="new"))
    assert not shadow_once(store, spool, new, settings, lambda: NOW)
    store.mark_ready(waiting, 1, "whole", NOW)
    assert not shadow_once(store, spool, new, settings, lambda: NOW)
    claim = store.claim(NOW)
    assert not shadow_once(store, spool, new, settings, lambda: NOW)
    assert jobs == []
    assert claim is not None
    assert store.finish(claim, said(ensemble="old"), [], [], NOW)
    assert shadow_once(store, spool, new, settings, lambda: NOW)


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (BrokenExecutor(), "The grading process ended"),
        (ConfigError("No such weights."), "No such weights."),
        (ZeroDivisionError(), "ZeroDivisionError while grading; see the log."),
        (Assessment(verdict({}), excluded="The series is T1w.", ensemble="new"), "The series is T1w."),
    ],
)
def test_what_cannot_be_graded_is_tried_once_and_says_why(
    failure: Any, why: str, store: Store, spool: Spool, settings: Settings, images: list[bytes]
) -> None:
    uid = arrived(store, spool, images[0])
    graded(store, uid, 1)
    new, _ = trial(failure)
    assert shadow_once(store, spool, new, settings, lambda: NOW)
    assert not shadow_once(store, spool, new, settings, lambda: NOW)
    assert why in store.overview.events(1)[0].detail["why"]
    compared = store.shadows.compared()
    assert compared is not None
    assert (compared.scans, compared.ungraded) == (0, 1)
    assert all(row.ensembles.same is None and row.ensembles.kappa is None for row in rows(compared))


def test_a_busy_processor_and_a_node_that_stops_leave_it_for_later(
    store: Store, spool: Spool, settings: Settings, images: list[bytes]
) -> None:
    graded(store, arrived(store, spool, images[0]), 1)
    new, _ = trial(TimeoutError(), TransientError("The node is stopping."), said(ensemble="new"))
    assert not shadow_once(store, spool, new, settings, lambda: NOW)
    with pytest.raises(TransientError):
        shadow_once(store, spool, new, settings, lambda: NOW)
    assert shadow_once(store, spool, new, settings, lambda: NOW)


def test_images_that_retention_took_are_passed_over(
    store: Store, spool: Spool, settings: Settings, images: list[bytes]
) -> None:
    uid = arrived(store, spool, images[0])
    graded(store, uid, 1)
    assert store.mark_removed(uid, spool.instances(uid), NOW)
    new, jobs = trial()
    assert not shadow_once(store, spool, new, settings, lambda: NOW)
    assert jobs == []


def test_the_figures_are_those_of_the_grades(
    store: Store, spool: Spool, settings: Settings, images: list[bytes], tmp_path: Path
) -> None:
    active, shadow, people = [0, 1, 2, 2], [0, 2, 2, 0], [0, 2, None, 1]
    uids = [arrived(store, spool, image) for image in images]
    for uid, severity, label in zip(uids, active, people, strict=True):
        graded(store, uid, severity)
        if label is not None:
            store.opinions.agree(uid, 1, "mira", NOW)
            store.opinions.correct(uid, 1, {Artifact.NOISE: Severity(label)}, "mira", NOW)
    new, _ = trial(*(said(severity, ensemble="new") for severity in reversed(shadow)))
    while shadow_once(store, spool, new, settings, lambda: NOW):
        pass
    compared = store.shadows.compared()
    assert compared is not None
    assert (compared.active, compared.shadow, compared.scans, compared.ungraded) == ("old", "new", 4, 0)
    noise = next(row for row in rows(compared) if row.artifact is Artifact.NOISE)
    assert compared.grades[Artifact.NOISE] == Counter(
        (Severity(a), Severity(b)) for a, b in zip(active, shadow, strict=True)
    )
    assert noise.ensembles.table == ((1, 0, 0), (0, 0, 1), (1, 0, 1))
    assert noise.ensembles.kappa == pytest.approx(cohen_kappa_score(active, shadow, weights="quadratic"))
    assert (noise.ensembles.same, noise.active.scans) == (0.5, 3)
    assert noise.active.same == pytest.approx(1 / 3)
    assert noise.shadow.same == pytest.approx(2 / 3)
    motion = next(row for row in rows(compared) if row.artifact is Artifact.MOTION)
    assert (motion.ensembles.same, motion.ensembles.kappa) == (1.0, None)
    assert dict(verdicts(compared)) == {
        Decision.ACCEPT: [1, 0, 0],
        Decision.REVIEW: [0, 0, 1],
        Decision.RESCAN: [1, 0, 1],
    }
    assert compared.different == [(uids[3], 2), (uids[1], 1)]
    assert json.loads(json.dumps(to_json(compared)))["artifacts"]["Noise"]["people_and_shadow"]["scans"] == 3
    with served(store, tmp_path) as page:
        text = markup(page, "/shadow").text
        assert "In shadow: new" in text
        assert "Noise 50 %" in text
        assert f"…{uids[3][-8:]} 2" in text


def test_the_page_says_when_there_is_nothing(store: Store, tmp_path: Path) -> None:
    with served(store, tmp_path) as page:
        assert "Nothing was graded in shadow yet." in markup(page, "/shadow").text


def test_real_weights_grade_in_the_worker_and_on_the_processor_alone(weights: Path, images: list[bytes]) -> None:
    assessing = Assessing(shadow=weights, device="cuda", threads=8).on_trial()
    assert assessing is not None
    assert (assessing.weights, assessing.shadow, assessing.device, assessing.threads) == (weights, None, "cpu", 1)
    settings = Settings()
    found = score(Job((images[0],), 1, NOW, None, settings.full_policy(), settings.eligibility, assessing))
    assert set(found.grades) == set(Artifact)
    assert found.ensemble.startswith("new-")
    assert found.preview == ()


def test_unfit_weights_do_not_keep_the_node_from_starting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Trial.of(Settings()) is None
    assert Trial.of(Settings(assessing=Assessing(shadow=tmp_path / "none"))) is None
    assert "shadow_unavailable" in caplog.text


def test_everybody_is_preferred_to_the_process_on_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    nice: list[int] = []
    monkeypatch.setattr(worker.os, "nice", nice.append)
    worker.prepare_process()
    assert nice == []
    worker.prepare_process(True)
    assert nice == [19]


def test_a_verdict_does_not_wait_for_weights_on_trial_that_are_at_work(
    settings: Settings, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They keep hold of the first scan; the second gets its verdict all the same, and its turn only after that."""
    order: list[str] = []
    let_go, on_trial = threading.Event(), threading.Event()

    class Active:
        loaded = "old"

        def __init__(self, _: Assessing) -> None: ...

        def submit(self, job: Job) -> Outcome:
            order.append("verdict")
            return Outcome(said(0, ensemble="old"), ())

        def stop(self) -> None: ...

    def held(_: Job) -> Assessment:
        order.append("trial begins")
        on_trial.set()
        assert let_go.wait(60)
        order.append("trial ends")
        return said(1, ensemble="new")

    monkeypatch.setattr(node, "Grading", Active)
    monkeypatch.setattr(node.Trial, "of", lambda _: Trial("new", Assessing(), held, let_go.set))
    local = {"dicom": Dicom(host="127.0.0.1", port=0), "web": Web(port=0)}
    running = node.Node(settings.model_copy(update=local))
    running.start()
    try:
        first = arrived(running.store, running.spool, images[0])
        assert on_trial.wait(60)
        second = arrived(running.store, running.spool, images[1])
        wait_for(lambda: verdict_of(running.store, second))
        assert order == ["verdict", "trial begins", "verdict"]
        let_go.set()
        wait_for(lambda: order.count("trial ends") == 2)
        assert order[2:] == ["verdict", "trial ends", "trial begins", "trial ends"]
        assert verdict_of(running.store, first) is verdict_of(running.store, second) is Decision.ACCEPT
    finally:
        let_go.set()
        running.stop()


def verdict_of(store: Store, uid: str) -> Decision | None:
    series = store.overview.detail(uid)
    return series.latest.decision if series and series.latest else None


def wait_for(true: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"it did not happen within {seconds:.0f} s"
        time.sleep(0.02)


# Promotion

SITE = """\
# our node
[state]
folder = "{state}"
shadow_play = 1
[assessing]  # who grades
weights = "{old}"  # since March
shadow = "{new}"
threads = 1
[web]
port = 0
"""


@pytest.fixture
def site(tmp_path: Path, weights: Path) -> Path:
    old = write_chance_weights(tmp_path / "runs", tmp_path / "old", "old", seed=9)
    file = tmp_path / "site.toml"
    text = SITE.format(state=tmp_path / "state", old=old, new=weights).replace("shadow_play = 1\n", "")
    file.write_text(text)
    file.chmod(0o640)
    return file


def test_promotion_swaps_two_lines_and_says_so(site: Path, weights: Path) -> None:
    before = site.read_text()
    done = promote(site)
    assert done.before.startswith("old-")
    assert done.now.startswith("new-")
    settings = load(site)
    assert (settings.assessing.weights, settings.assessing.shadow, settings.assessing.threads) == (weights, None, 1)
    assert site.stat().st_mode & 0o777 == 0o640
    changed = [(a, b) for a, b in zip(before.splitlines(), site.read_text().splitlines(), strict=True) if a != b]
    assert len(changed) == 2
    assert "# since March" in site.read_text()
    with Store.open(settings.state) as store:
        event = store.overview.events(1)[0]
    assert (event.kind, event.detail) == ("weights_promoted", {"from": done.before, "to": done.now})
    with pytest.raises(ConfigError, match="No weights are on trial"):
        promote(site)
    assert [path.name for path in site.parent.iterdir() if path.name.startswith(".")] == []


def test_only_the_section_s_own_keys_are_touched() -> None:
    text = SITE.replace('shadow = "{new}"\n', '  shadow="x"\r\n')
    edited = swapped(text)
    assert "shadow_play = 1\n" in edited
    assert '#weights = "{old}"  # since March\n  weights="x"\r\n' in edited
    assert swapped("[other]\nweights = 1\n") == "[other]\nweights = 1\n"


@pytest.mark.parametrize("form", ['assessing.shadow = "{new}"\n', 'assessing = {{ shadow = "{new}" }}\n'])
def test_a_file_in_another_form_is_left_alone_with_advice(tmp_path: Path, weights: Path, form: str) -> None:
    file = tmp_path / "site.toml"
    file.write_text(form.format(new=weights) + f'[state]\nfolder = "{tmp_path / "state"}"\n')
    before = file.read_bytes()
    with pytest.raises(ConfigError, match=r"in \[assessing\] write weights"):
        promote(file)
    assert file.read_bytes() == before


def test_damaged_weights_are_not_promoted(site: Path, weights: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in weights.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "noise.safetensors").write_bytes(b"other")
    site.write_text(site.read_text().replace(str(weights), str(copy)))
    before = site.read_bytes()
    with pytest.raises(ConfigError, match="is not the file that"):
        promote(site)
    assert site.read_bytes() == before


Run = Callable[..., str]


def test_the_commands(site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["qcnode", "shadow", *arguments, "--config", str(site)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        return " ".join(capsys.readouterr().out.split())

    assert "set shadow in [assessing]" in run("compare")
    assert run("compare", "--json") == "null"
    with Store.open(load(site).state) as store:
        spool = Spool(load(site).state.folder)
        head = phantom.head(np.random.default_rng(3), Plane.AXIAL)
        image = to_bytes(swoop_series(head, patient_id="P", generator=np.random.default_rng(8)))
        graded(store, arrived(store, spool, image), 2)
        new, _ = trial(said(0, ensemble="new"))
        assert shadow_once(store, spool, new, load(site), lambda: NOW)
    printed = run("compare")
    assert "Active old, in shadow new: 1 scan." in printed
    assert "Of 1 × rescan: accept 1, review 0, rescan 0." in printed
    assert "Restart the node" in run("promote")
