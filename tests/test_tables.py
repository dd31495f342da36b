"""The comparisons: what differs between rows, runs that are shared and not repeated, intervals of differences."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lisa_folder import write_lisa_folder

from qcnode.agreement import confusion
from qcnode.artifacts import Artifact
from qcnode.ensemble.networks import own_width
from qcnode.errors import ConfigError, TransientError
from train.__main__ import main
from train.config import FitConfig
from train.dataset import cached_input, inputs, read_scans
from train.metrics import challenge_figures, fifteen
from train.split import TEST, subjects_of
from train.studies import comparisons, jobs
from train.studies.comparisons import Row, Scale
from train.studies.folds import save_predictions
from train.studies.jobs import Job, Study, run_all
from train.studies.report import Graded
from train.tables import (
    MACRO_F1,
    Measure,
    chosen_table,
    configuration_table,
    effect_of,
    effect_table,
    encoder_table,
    jobs_of,
    said,
    severity_f1,
    write_table,
)

LABELS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30)


@given(LABELS)
@settings(max_examples=60, deadline=None)
def test_the_fifteen_of_a_confusion_table_are_the_challenges(pairs: list[tuple[int, int]]) -> None:
    truth, named = (np.array(each, np.int64) for each in zip(*pairs, strict=True))
    wanted = list(challenge_figures(truth, named).values())
    np.testing.assert_allclose(fifteen(confusion(truth, named)), wanted, atol=1e-12)


@pytest.mark.parametrize("scale", list(Scale))
def test_the_configurations_differ_in_what_their_names_say(scale: Scale) -> None:
    rows = {row.name: row.configs[Artifact.MOTION] for row in comparisons.configurations(scale)}
    assert len(rows) == (14 if scale is Scale.PAPER else 9)
    method = rows["BRIQA, rotating batches, cross-entropy"]
    assert (method.reweight, method.batching, method.loss, method.variation) == (
        *(True, "rotating"),
        *("cross-entropy", "none"),
    )
    for name, its in rows.items():
        assert its.reweight == name.startswith("BRIQA")
        assert (its.batching == "rotating") == ("rotating batches" in name)
        assert (its.variation == "half-turn") == name.endswith(", rotated")
        assert its.encoder.endswith("+dft") == ("DFT" in name)
    # rotating batches and reweighting, each with and without
    four = {(its.reweight, its.batching) for its in rows.values() if its.loss == "cross-entropy"}
    assert len(four) == 4


@pytest.mark.parametrize("scale", list(Scale))
def test_encoders_differ_in_nothing_else(scale: Scale) -> None:
    rows = comparisons.encoders(scale)
    for artifact in Artifact:
        others = [row.configs[artifact].model_dump(exclude={"encoder", "width"}) for row in rows]
        assert all(other == others[0] for other in others)
    assert len({row.configs[Artifact.NOISE].encoder for row in rows}) == len(rows)
    assert len(rows) == (10 if scale is Scale.PAPER else 2)


def test_the_papers_encoders_have_their_published_width() -> None:
    configs = {row.name: row.configs[Artifact.NOISE] for row in comparisons.encoders(Scale.PAPER)}
    assert list(configs)[-3:] == ["mambaout_tiny", "mambaout_small", "mambaout_base"]
    assert all(its.encoder == name and its.encoder_width == own_width(name) for name, its in configs.items())


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    torch.set_num_threads(1)
    data = tmp_path_factory.mktemp("lisa")
    write_lisa_folder(data, subjects=4)
    return Study(data, data / ".inputs", tmp_path_factory.mktemp("out"), folds=3, repeats=1)


@pytest.fixture(scope="module")
def row() -> Row:
    config = FitConfig(width=1, epochs=0, variation="none", batching="standard")
    return Row("tiny", dict.fromkeys((Artifact.NOISE, Artifact.MOTION), config))


def test_runs_are_shared_between_rows_and_named_for_all_they_depend_on(study: Study, row: Row) -> None:
    same, other = row.but("same"), row.but("other", reweight=False)
    folders = [{job.folder(study) for job in jobs_of(each, study)} for each in (row, same, other)]
    assert folders[0] == folders[1]
    assert not folders[0] & folders[2]
    assert len(folders[0]) == 2 * 3


def test_what_is_done_is_not_run_again_and_the_figures_come_from_what_was_said(
    study: Study, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = read_scans(study.data)
    everything = inputs(scans, [np.zeros((1, 1, 1), np.float16)] * len(scans))
    for job in jobs_of(row, study):  # as a finished run leaves them; the truth for Noise, always "none" for Motion
        test = everything.of(subjects_of(study.parts(job.repeat, job.fold), TEST))
        truth = test.labels[:, list(Artifact).index(job.artifact)]
        named = truth if job.artifact is Artifact.NOISE else np.zeros_like(truth)
        job.folder(study).mkdir(parents=True)
        subjects = [scan.subject for scan in test.scans]
        save_predictions({job.artifact: Graded(subjects, truth, np.eye(3)[named])}, test, job.folder(study))
    monkeypatch.setattr(jobs, "run", _fail)
    run_all(jobs_of(row, study), study, workers=1, scheduler=None)

    found = said(row, study, {scan.path.name: scan.subject for scan in scans})
    assert sorted(found[Artifact.NOISE].subjects) == sorted(scan.subject for scan in scans)
    measure = Measure([scan.subject for scan in scans])
    assert measure.of(found[Artifact.NOISE])[0] == pytest.approx(1)
    assert measure.of(found[Artifact.MOTION])[0, MACRO_F1] == pytest.approx(1 / 6)
    assert severity_f1(found[Artifact.MOTION], measure)[0].tolist() == pytest.approx([1 / 2, 0, 0])


def _fail(*_: object) -> None:
    raise AssertionError("a finished run was begun again")


def _graded(right: Callable[[int], bool]) -> Graded:
    truth = np.arange(60) % 3
    named = np.where([right(i) for i in range(60)], truth, (truth + 1) % 3)
    return Graded([f"S{i // 3}" for i in range(60)], truth, np.eye(3)[named])


def test_a_rows_difference_from_itself_is_nothing_and_from_a_worse_one_is_more() -> None:
    good = {Artifact.NOISE: _graded(lambda i: i % 10 > 0)}
    bad = {Artifact.NOISE: _graded(lambda i: i % 10 > 5)}
    measure = Measure(good[Artifact.NOISE].subjects)
    _, first, same, worse = configuration_table({"good": good, "again": good, "bad": bad}, measure)
    assert first[0] == "good"
    assert same[-1] == "+0.000 (+0.000 – +0.000)"
    low, high = (float(value) for value in worse[-1].split("(")[1].rstrip(")").split(" – "))
    assert low < high < 0
    best = chosen_table({"bad": bad, "good": good}, {"baseline": bad}, measure)[1]
    assert best[1].startswith("good: 0.9")


def test_an_effect_is_the_difference_of_two_rows_in_every_repeat() -> None:
    good, bad = ({Artifact.NOISE: _graded(lambda i, n=n: i % 10 > n)} for n in (0, 5))
    rows = {("standard", False): [bad, bad], ("standard", True): [good, good]}
    rows |= {("rotating", False): [bad, bad], ("rotating", True): [good, bad]}
    measure = Measure(good[Artifact.NOISE].subjects)
    effect = effect_of(rows, (("standard", True), ("standard", False)), [Artifact.NOISE], measure)
    difference = measure.mean_of(good)[0, MACRO_F1] - measure.mean_of(bad)[0, MACRO_F1]
    assert effect[:, 0] == pytest.approx([difference, difference])
    _, noise = effect_table(rows, measure)
    assert noise[1].startswith(f"{difference:+.3f} (")
    assert noise[1].endswith("; SD 0.000")
    assert noise[2].startswith(f"{difference / 2:+.3f} (")
    assert noise[2].endswith(f"SD {difference / 2**0.5:.3f}")


def test_a_perfect_rows_intervals_are_one_however_rare_a_severity_is() -> None:
    truth = np.array([0] * 30 + [1] * 9 + [2])
    graded = Graded([f"S{i}" for i in range(40)], truth, np.eye(3)[truth])
    measure = Measure(graded.subjects)
    np.testing.assert_allclose(measure.of(graded), 1)
    np.testing.assert_allclose(severity_f1(graded, measure), 1)


def test_a_table_is_markdown_and_csv(tmp_path: Path) -> None:
    rows = {"one": {Artifact.NOISE: _graded(lambda i: True)}}
    cells = encoder_table(rows, Measure(rows["one"][Artifact.NOISE].subjects))
    markdown = write_table(cells, tmp_path / "t.csv").splitlines()
    assert markdown[2].startswith("| one | 1.000 | 1.000 (1.000 – 1.000) |")
    assert (tmp_path / "t.csv").read_text().splitlines()[1].startswith("one,1.000,")


def test_a_job_is_run_to_its_predictions_and_its_learning_curve(study: Study, tmp_path: Path) -> None:
    config = FitConfig(width=1, epochs=1, variation="none", batching="standard")
    job, its = Job(Artifact.ZIPPER, config, 1, 1), Study(study.data, study.cache, tmp_path, 3, 1)
    for scan in read_scans(study.data):
        cached_input(scan, study.cache)
    jobs.run(job, its)
    assert job.is_done(its)
    rows = (job.folder(its) / "Zipper.epochs.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "0", "1"]


def test_a_missing_cluster_is_named(study: Study, row: Row) -> None:
    pytest.importorskip("distributed")
    quick = pytest.importorskip("dask").config.set({"distributed.comm.timeouts.connect": "1s"})
    with quick, pytest.raises(ConfigError, match="No Dask scheduler answers"):
        run_all(jobs_of(row, study), study, workers=1, scheduler="tcp://127.0.0.1:1")


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_a_clusters_workers_have_a_thread_each_and_it_is_told_when_there_are_none(
    study: Study, threads: int, caplog: pytest.LogCaptureFixture
) -> None:
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": min(threads, 1), "processes": False, "dashboard_address": None}
    refused = contextlib.nullcontext() if threads < 2 else pytest.raises(ConfigError, match="start workers with --nth")
    with distributed.LocalCluster(threads_per_worker=max(threads, 1), **options) as cluster, refused:
        run_all([], study, workers=1, scheduler=cluster.scheduler_address)
    assert ("no_worker_yet" in caplog.text) == (threads == 0)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of one process, as `dask scheduler` and `dask worker --nthreads 1` make one."""
    distributed = pytest.importorskip("distributed")
    dask = pytest.importorskip("dask")
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(**options) as cluster,
    ):
        assert cluster.scheduler_address.startswith("tcp://")
        yield cluster.scheduler_address


def test_the_command_runs_its_jobs_on_a_cluster_and_a_failing_one_is_a_sentence(
    study: Study, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    tiny = {"variation": "none", "preprocessing": "blocks-1", "bf16": False}
    row = Row("tiny", {Artifact.MOTION: FitConfig(width=1, epochs=0, **tiny)})
    _compare_alone(monkeypatch, row, row)
    command = ["tables", "--data", str(study.data), "--out", str(tmp_path), "--scheduler", cluster]
    command += ["--artifact", "Motion", "--effect-repeats", "1"]
    assert main(command) == 0
    its = Study(study.data, study.cache, tmp_path, 3, 1)
    for job in jobs_of(row, its):
        files = {path.name for path in job.folder(its).iterdir()}
        assert files >= {"Motion.safetensors", "Motion.json", "Motion.epochs.csv", "predictions.csv"}
    assert "| tiny | " in (tmp_path / "report.md").read_text()

    capsys.readouterr()
    broken = row.but("broken", epochs=2, learning_rate=1e30)
    _compare_alone(monkeypatch, broken, broken)
    assert main(command) == 2
    error = capsys.readouterr().err
    words = r"Motion with compact-resnet, repeat 1, fold \d, on a Dask worker: The loss is no longer a number; .*\n"
    assert re.fullmatch(words, error)


def test_a_process_that_is_killed_is_a_sentence_here_and_on_a_cluster(cluster: str) -> None:
    for scheduler, words in ((None, r"A run's process was killed"), (cluster, r"A worker of the Dask cluster at tcp:")):
        with (
            pytest.raises(TransientError, match=f"^{words}.* give the command again: it goes on from what is there"),
            jobs._executor(1, scheduler) as executor,
        ):
            executor.submit(os._exit, 1).result()


def test_a_worker_that_does_not_see_the_folder_says_so(study: Study, row: Row, tmp_path: Path) -> None:
    elsewhere = Study(tmp_path / "absent", study.cache, tmp_path, 3, 1)
    with pytest.raises(ConfigError, match=r"absent/labels\.csv cannot be read"):
        jobs.run(jobs_of(row, study)[0], elsewhere)


def test_figures_are_drawn(study: Study, row: Row, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from train.figures import draw_figures

    graded = {Artifact.NOISE: _graded(lambda i: i % 4 > 0)}
    paths = draw_figures(graded, Measure(graded[Artifact.NOISE].subjects), [], study, tmp_path)
    assert [path.name for path in paths] == ["confusion.svg", "reliability.svg", "f1.svg", "curves.svg"]
    assert all("<svg" in path.read_text() for path in paths)


def test_a_study_whose_runs_are_done_becomes_a_report(
    study: Study, row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    from train.studies.study import compare

    base = row.but("baseline", plane_weight=0.0)
    _compare_alone(monkeypatch, row, base)
    its, scans = Study(study.data, study.cache, tmp_path, 3, 1), read_scans(study.data)
    everything = inputs(scans, [np.zeros((1, 1, 1), np.float16)] * len(scans))
    for job in [job for each in (row, base) for job in jobs_of(each, its)]:
        test = everything.of(subjects_of(its.parts(job.repeat, job.fold), TEST))
        truth = test.labels[:, list(Artifact).index(job.artifact)]
        folder = job.folder(its)
        folder.mkdir(parents=True)
        save_predictions({job.artifact: Graded([s.subject for s in test.scans], truth, np.eye(3)[truth])}, test, folder)
        (folder / f"{job.artifact}.epochs.csv").write_text("epoch,macro_f1\n0,0.5\n")
    report = compare(its, Scale.SMALL, list(row.configs), workers=1).read_text()
    assert "| tiny | 1.000 | 1.000 | 1.000 (1.000 – 1.000) | 1.000 (1.000 – 1.000) |" in report
    assert "+0.000 (+0.000 – +0.000)" in report
    assert "always the commonest" in report
    for name in ("encoders.csv", "effects.csv", "chosen.csv", "figures/effects.svg", "metrics.npz"):
        assert (tmp_path / name).is_file()


def _compare_alone(monkeypatch: pytest.MonkeyPatch, row: Row, base: Row) -> None:
    """Let nothing be compared but one row with a baseline."""
    four = [("standard", False), ("standard", True), ("rotating", False), ("rotating", True)]
    monkeypatch.setattr(comparisons, "briqa", lambda _: row)
    monkeypatch.setattr(comparisons, "baseline", lambda _: base)
    monkeypatch.setattr(comparisons, "encoders", lambda _: [row])
    monkeypatch.setattr(comparisons, "configurations", lambda _: [base.but("plain"), row])
    monkeypatch.setattr(comparisons, "effects", lambda _: dict.fromkeys(four, row))


def _labelled(folder: Path, severities: dict[str, int]) -> Path:
    """A folder whose table has a scan of each subject, all artifacts of its severity; its images are empty."""
    rows = [f"LISA_{subject}_LF_axi.nii.gz" + f",{its}" * len(Artifact) for subject, its in severities.items()]
    folder.mkdir()
    for row in rows:
        (folder / row.split(",")[0]).touch()
    (folder / "labels.csv").write_text("\n".join([",".join(["filename", *Artifact]), *rows]))
    return folder


@pytest.mark.parametrize(
    ("severities", "words"),
    [
        ([0, 1, 2, 0, 1, 0], r"Repeat 1, fold \d of 3: No training scan has Motion of severity 2; add some"),
        ([0, 1, 0, 1, 0, 1], r"Repeat 1, fold 1 of 3: No training scan has Motion of severity 2; add some"),
        ([0, 1], r"--folds 3 does not fit 2 patients; choose from 3 to their number"),
    ],
)
def test_data_that_a_fold_cannot_learn_from_is_refused_before_anything_is_read(
    severities: list[int], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _labelled(tmp_path / "data", {f"{number:04d}": its for number, its in enumerate(severities)})
    command = ["tables", "--data", str(data), "--out", str(tmp_path / "out"), "--artifact", "Motion"]
    assert main(command) == 2
    assert re.fullmatch(f"{words}.*\n", capsys.readouterr().err)  # an empty image would be refused in other words


def test_every_fold_of_every_repeat_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _labelled(tmp_path / "data", {f"{number:04d}": number % 3 for number in range(9)})
    its, seen = Study(data, tmp_path, tmp_path, folds=3, repeats=2), []
    monkeypatch.setattr(jobs, "refuse_absent", lambda scans, part_of, artifacts: seen.append(part_of))
    its.refuse_absent([Artifact.MOTION])
    assert seen == [its.parts(repeat, fold) for repeat in (1, 2) for fold in (1, 2, 3)]
