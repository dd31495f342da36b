"""Instances → Assessment, with a stand-in for the ensemble: no weights and no torch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from dicom_instances import classic_slice, part10
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.assess import assess, assess_volume
from qcnode.config import Eligibility
from qcnode.imaging import phantom
from qcnode.imaging.preprocess import INPUT_SHAPE, PREPROCESSING
from qcnode.imaging.swoop import classic_series, swoop_series, to_bytes
from qcnode.imaging.volume import Volume
from qcnode.verdict import DEFAULT_POLICY, Assessment, Condition, Decision, Grade, Rule


class StandIn:
    """Grades every scan as it was told, and keeps what it was asked to grade."""

    id = "stand-in"
    contrasts = frozenset({"T2w"})
    preprocessing = PREPROCESSING

    def __init__(self, **severities: Severity) -> None:
        self.severities = severities
        self.asked: list[NDArray[np.float32]] = []

    def grade(self, network_input: NDArray[np.float32]) -> dict[Artifact, Grade]:
        self.asked.append(network_input)
        return {artifact: self._grade(artifact) for artifact in Artifact}

    def located(
        self, grades: Mapping[Artifact, Grade], network_input: NDArray[np.float32], shown: NDArray[np.intp]
    ) -> dict[Artifact, Grade]:
        """Every grade above none is carried by the first slice."""
        return {artifact: replace(grade, slices=(0,) if grade.severity else None) for artifact, grade in grades.items()}

    def _grade(self, artifact: Artifact) -> Grade:
        severity = self.severities.get(artifact.value, Severity.NONE)
        none, moderate, severe = (0.8 if level == severity else 0.1 for level in Severity)
        return Grade(severity, (none, moderate, severe))


@pytest.fixture(scope="module")
def head() -> Volume:
    return phantom.head(np.random.default_rng(3), Plane.CORONAL)


@pytest.fixture(scope="module")
def swoop(head: Volume) -> bytes:
    return to_bytes(swoop_series(head, patient_id="P1", generator=np.random.default_rng(3)))


@pytest.fixture(scope="module")
def slices(head: Volume) -> list[bytes]:
    return [to_bytes(one) for one in classic_series(head, patient_id="P1", generator=np.random.default_rng(3))]


def same(a: Assessment, b: Assessment) -> bool:
    """Equal but for the time they took."""
    pictures = len(a.preview) == len(b.preview) and all(map(np.array_equal, a.preview, b.preview))
    return pictures and (a.verdict, a.series_uid, a.plane, a.grades) == (b.verdict, b.series_uid, b.plane, b.grades)


def ungraded(instances: Sequence[bytes], rules: Eligibility | None = None) -> Assessment:
    """The assessment of what must not reach the ensemble."""
    ensemble = StandIn()
    found = assess(instances, ensemble, eligibility=rules)
    assert not ensemble.asked
    assert not found.grades
    assert found.verdict.decision is Decision.NOT_ASSESSABLE
    assert found.ensemble == ensemble.id
    return found


def test_a_series_gets_seven_grades_its_plane_its_verdict_and_its_preview(swoop: bytes) -> None:
    ensemble = StandIn(Motion=Severity.SEVERE)
    found = assess([swoop], ensemble)
    assert set(found.grades) == set(Artifact)
    assert found.verdict.decision is Decision.RESCAN
    assert found.verdict.reasons == ("Severe motion. Repeat this scan; settle the child first.",)
    assert (found.plane, found.ensemble, found.excluded) == (Plane.CORONAL, "stand-in", None)
    assert found.series_uid is not None
    assert [section.dtype for section in found.preview] == [np.uint8] * 3
    assert set(found.seconds) == {"volume", "grading", "slices", "preview"}
    assert all(seconds >= 0 for seconds in found.seconds.values())
    assert [asked.shape for asked in ensemble.asked] == [INPUT_SHAPE]


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_the_instances_changes_nothing(slices: list[bytes], seed: int) -> None:
    shuffled = [slices[i] for i in np.random.default_rng(seed).permutation(len(slices))]
    one, other = StandIn(), StandIn()
    assert same(assess(slices, one), assess(shuffled, other))
    np.testing.assert_array_equal(one.asked[0], other.asked[0])


def test_enhanced_and_classic_are_the_same_scan(swoop: bytes, slices: list[bytes]) -> None:
    one, other = StandIn(), StandIn()
    assert assess([swoop], one).plane == assess(slices, other).plane
    np.testing.assert_allclose(one.asked[0], other.asked[0], atol=1e-3)


def test_the_sites_policy_decides(swoop: bytes) -> None:
    lenient = {**DEFAULT_POLICY, Artifact.MOTION: Rule(review=None, rescan=None)}
    assert assess([swoop], StandIn(Motion=Severity.SEVERE), lenient).verdict.decision is Decision.ACCEPT
    strict = {**DEFAULT_POLICY, Artifact.NOISE: Rule(rescan=Condition(Severity.MODERATE, 0.15))}
    assert assess([swoop], StandIn(), strict).verdict.decision is Decision.RESCAN


def test_a_contrast_that_the_ensemble_does_not_cover_is_excluded(head: Volume) -> None:
    generator = np.random.default_rng(4)
    t1 = swoop_series(head, patient_id="P1", generator=generator, acquisition_contrast="T1")
    found = ungraded([to_bytes(t1)])
    assert found.excluded is not None
    assert "T1w" in found.excluded
    assert found.verdict.reasons == (found.excluded,)


def test_what_is_no_mr_is_excluded(slices: list[bytes]) -> None:
    found = ungraded([part10(classic_slice(1, Modality="CT", SOPClassUID=CTImageStorage))])
    assert found.excluded is not None
    assert found.series_uid is not None


def test_a_stack_of_too_few_slices_is_not_assessable_and_not_excluded(slices: list[bytes]) -> None:
    found = ungraded(slices[:8])
    assert found.excluded is None
    assert "slices" in found.verdict.reasons[0]


def test_a_missing_slice_is_named(slices: list[bytes]) -> None:
    found = ungraded([*slices[:10], *slices[11:]])
    assert found.excluded is None
    assert "11" in found.verdict.reasons[0], found.verdict.reasons


def test_damage_in_one_instance_is_a_verdict_not_a_crash(slices: list[bytes]) -> None:
    cut = [*slices[:5], slices[5][:400], *slices[6:]]
    assert ungraded(cut).verdict.reasons
    assert ungraded([slices[0][:200]]).verdict.reasons
    assert ungraded([*slices[:-1], slices[-1][:-1000]]).verdict.reasons


@pytest.mark.parametrize("instances", [[], [b""], [b"not DICOM at all"], [bytes(500)]])
def test_nothing_readable_is_a_reason(instances: list[bytes]) -> None:
    found = ungraded(instances)
    assert found.verdict.reasons == ("None of the instances is readable DICOM; send the series again.",)
    assert found.series_uid is None


def test_a_volume_without_dicom_has_no_series(head: Volume) -> None:
    found = assess_volume(head, StandIn(Noise=Severity.MODERATE))
    assert (found.series_uid, found.plane) == (None, Plane.CORONAL)
    assert found.verdict.decision is Decision.REVIEW


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan, np.inf])
def test_an_empty_or_broken_volume_is_not_assessable(head: Volume, value: float) -> None:
    ensemble = StandIn()
    found = assess_volume(Volume(np.full_like(head.array, value), head.affine), ensemble)
    assert found.verdict.decision is Decision.NOT_ASSESSABLE
    assert not ensemble.asked
    assert (found.preview == ()) == (not np.isfinite(value)), "a look at it, where there is anything to look at"


def test_no_head_in_it_is_not_assessable(head: Volume) -> None:
    noise = np.random.default_rng(5).rayleigh(1.0, head.array.shape).astype(np.float32)
    ensemble = StandIn()
    assert assess_volume(Volume(noise, head.affine), ensemble).verdict.decision is Decision.NOT_ASSESSABLE
    assert not ensemble.asked


@pytest.mark.parametrize("keyword", ["SeriesInstanceUID", "PatientName", "ImageType", "Rows", "InstanceNumber"])
def test_an_element_with_a_damaged_value_representation_ends_in_a_verdict(slices: list[bytes], keyword: str) -> None:
    tag = Tag(keyword)
    start = tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little")
    place = slices[0].index(start) + len(start)
    damaged = slices[0][:place] + b"I\xff" + slices[0][place + 2 :]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of the damage
        result = assess([damaged, *slices[1:]], StandIn())
    assert result.verdict.reasons
    assert result.series_uid == assess(slices, StandIn()).series_uid
