from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcnode.artifacts import Artifact, Severity
from qcnode.verdict import (
    DEFAULT_POLICY,
    Condition,
    Decision,
    Grade,
    Rule,
    not_assessable,
    of_a_part,
    slice_ranges,
    verdict,
    worst_in_slices,
)


def grade(severity: int) -> Grade:
    probabilities = [0.1, 0.1, 0.1]
    probabilities[severity] = 0.8
    return Grade(Severity(severity), (probabilities[0], probabilities[1], probabilities[2]))


def scores(**severities: int) -> dict[Artifact, Grade]:
    return {artifact: grade(severities.get(artifact.name.lower(), 0)) for artifact in Artifact}


severities = st.lists(st.integers(0, 2), min_size=7, max_size=7)


@given(severities)
def test_the_default_policy_is_the_worst_severity(levels: list[int]) -> None:
    graded = {artifact: grade(level) for artifact, level in zip(Artifact, levels, strict=True)}
    expected = (Decision.ACCEPT, Decision.REVIEW, Decision.RESCAN)[max(levels)]
    assert verdict(graded).decision is expected


@given(severities, st.randoms())
def test_the_order_of_the_artifacts_changes_nothing(levels: list[int], random: object) -> None:
    graded = {artifact: grade(level) for artifact, level in zip(Artifact, levels, strict=True)}
    backwards = dict(reversed(graded.items()))
    assert verdict(graded).decision is verdict(backwards).decision
    assert sorted(verdict(graded).reasons) == sorted(verdict(backwards).reasons)


@given(severities)
def test_each_artifact_that_asks_has_one_reason(levels: list[int]) -> None:
    graded = {artifact: grade(level) for artifact, level in zip(Artifact, levels, strict=True)}
    asking = sum(level > 0 for level in levels)
    assert len(verdict(graded).reasons) == max(asking, 1)


def test_a_reason_reads_like_a_colleague() -> None:
    said = verdict(scores(motion=2))
    assert said.reasons == ("Severe motion. Repeat this scan; settle the child first.",)


def test_the_worst_reason_comes_first() -> None:
    said = verdict(scores(noise=1, distortion=2))
    assert [reason.split(".")[0] for reason in said.reasons] == ["Severe distortion", "Moderate noise"]


def test_a_probability_replaces_the_grade() -> None:
    policy = {**DEFAULT_POLICY, Artifact.MOTION: Rule(rescan=Condition(Severity.SEVERE, 0.3))}
    doubtful = {**scores(), Artifact.MOTION: Grade(Severity.MODERATE, (0.1, 0.55, 0.35))}
    assert verdict(doubtful).decision is Decision.REVIEW
    assert verdict(doubtful, policy).decision is Decision.RESCAN


def test_a_rule_without_conditions_never_asks() -> None:
    policy = {Artifact.BANDING: Rule(review=None, rescan=None)}
    assert verdict(scores(banding=2), policy).decision is Decision.ACCEPT


def test_an_artifact_outside_the_policy_follows_the_default() -> None:
    assert verdict(scores(zipper=2), {}).decision is Decision.RESCAN


@pytest.mark.parametrize(("severity", "expected"), [(0, 1.0), (1, 0.75), (2, 0.25)])
def test_at_least_sums_the_upper_tail(severity: int, expected: float) -> None:
    assert Grade(Severity.NONE, (0.25, 0.5, 0.25)).at_least(Severity(severity)) == pytest.approx(expected)


def test_not_assessable_keeps_its_reason() -> None:
    assert not_assessable("Slice 3 is missing.").reasons == ("Slice 3 is missing.",)


@given(severities, st.integers(0, 40))
def test_what_is_missing_betters_no_verdict_and_forbids_to_go_on(severities: list[int], missing: int) -> None:
    said = verdict({artifact: grade(s) for artifact, s in zip(Artifact, severities, strict=True)})
    held = of_a_part(said, missing, 40)
    order = list(Decision)
    assert order.index(held.decision) >= order.index(said.decision)
    if missing:
        assert held.decision is not Decision.ACCEPT
        assert held.reasons[-1].startswith(f"{missing} of 40 instances that the scanner announced did not arrive.")
        assert not any("Go on" in reason for reason in held.reasons)
    else:
        assert held == said


def test_the_worst_grade_that_is_in_slices_is_that_of_the_worst_artifact_in_slices() -> None:
    severe, moderate = (Grade(s, (0.1, 0.2, 0.7), (3, 4)) for s in (Severity.SEVERE, Severity.MODERATE))
    whole = Grade(Severity.SEVERE, (0.0, 0.0, 1.0), ())
    found = {**scores(), Artifact.NOISE: moderate, Artifact.ZIPPER: severe, Artifact.MOTION: whole}
    assert worst_in_slices(found) is Artifact.ZIPPER
    assert worst_in_slices({**found, Artifact.ZIPPER: whole}) is Artifact.NOISE
    assert worst_in_slices(scores()) is None


@pytest.mark.parametrize(
    ("slices", "named"), [((4,), "slice 5"), ((0, 1, 2), "slices 1-3"), ((8, 0, 1, 4), "slices 1-2, 5, 9")]
)
def test_slices_are_counted_from_one(slices: tuple[int, ...], named: str) -> None:
    assert slice_ranges(slices) == named
