"""What a render knows of every place is true of its image, and only scans that have it count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.ensemble.fields import DISPLACEMENT_MM, FIELD_SHAPE, POSE_DEGREES, POSE_MM
from qcnode.ensemble.model import Member
from train.sampling.fields import Drawn, Fields, batch_of, fields_loss, watched
from train.simulation.brains import anatomy, phantoms
from train.simulation.contrasts import Head, head
from train.simulation.draws import draw
from train.simulation.renders import rendered
from train.simulation.scans import clean_scan

PLACE_MM = np.array([10.0, 12.8, 12.8])  # to some percent: a scan's own spacing varies
NONE = dict.fromkeys(Artifact, Severity.NONE)


@pytest.fixture(scope="module")
def its_head() -> Head:
    torch.set_num_threads(1)
    return head(anatomy(phantoms(3)[1]), "T2w", 165.0, np.random.default_rng(11))


def fields_of(its: Head, plane: Plane, seed: int, tilted: bool = False, **levels: Severity) -> Fields:
    """Of one render; everything but these severities is as it is for every other seed."""
    scan = clean_scan(its, plane, np.random.default_rng(2))
    drawn = draw(np.random.default_rng(seed), NONE | {Artifact(k): v for k, v in levels.items()}, slight=False)
    drawn = replace(drawn, distortion_kind="waves")  # along all axes
    if tilted:
        drawn = replace(drawn, tilt_degrees=(12.0, 14.0, 16.0), offset_mm=(13.0, 5.0, -3.0))
        drawn = replace(drawn, levels=drawn.levels | {"Positioning": 1})
    return rendered(scan, drawn, np.random.default_rng(1)).fields


def brain_of(fields: Fields) -> NDArray[np.float64]:
    return fields.maps[0].astype(float)


@pytest.mark.parametrize("plane", Plane)
@pytest.mark.parametrize("mirrored", [None, 0, 1, 2])
def test_the_displacement_leads_from_the_bent_brain_to_the_straight_one(
    its_head: Head, plane: Plane, mirrored: int | None
) -> None:
    straight, bent = (
        fields_of(its_head, plane, 5),
        fields_of(its_head, plane, 50, Distortion=Severity.MODERATE),
    )
    if mirrored is not None:
        straight, bent = straight.mirrored(mirrored), bent.mirrored(mirrored)
    shift = bent.maps[-3:].astype(float) * DISPLACEMENT_MM / PLACE_MM[:, None, None, None]
    places = np.indices(FIELD_SHAPE).astype(float)

    def off(signs: tuple[int, int, int]) -> float:
        there = places + shift * np.array(signs)[:, None, None, None]
        return float(np.abs(ndimage.map_coordinates(brain_of(straight), there, order=1) - brain_of(bent)).mean())

    for others in ((0, 0, 0), (-1, 1, 1), (1, -1, 1), (1, 1, -1)):
        assert off((1, 1, 1)) < off(others)


@pytest.mark.parametrize("plane", Plane)
@pytest.mark.parametrize("mirrored", [None, 0, 1, 2])
def test_the_pose_leads_from_one_brain_to_the_other(its_head: Head, plane: Plane, mirrored: int | None) -> None:
    before, after = fields_of(its_head, plane, 5), fields_of(its_head, plane, 5, tilted=True)
    if mirrored is not None:
        before, after = before.mirrored(mirrored), after.mirrored(mirrored)
    middle = (np.array(FIELD_SHAPE) - 1) / 2
    points = (np.indices(FIELD_SHAPE).reshape(3, -1).T - middle) * PLACE_MM

    def off(sign: float) -> float:
        turns = [
            Rotation.from_rotvec(sign * f.pose[:3] * POSE_DEGREES, degrees=True).as_matrix() for f in (before, after)
        ]
        shifts = [f.pose[3:] * POSE_MM for f in (before, after)]
        there = (points - shifts[1]) @ turns[1] @ turns[0].T + shifts[0]
        seen = ndimage.map_coordinates(brain_of(before), (there / PLACE_MM + middle).T, order=1).reshape(FIELD_SHAPE)
        return float(np.abs(seen - brain_of(after)).mean())

    unmoved = float(np.abs(brain_of(before) - brain_of(after)).mean())
    assert off(1) < unmoved / 2
    assert off(1) < off(-1) / 2


def test_a_shading_is_the_one_that_was_measured(its_head: Head) -> None:
    scan = clean_scan(its_head, Plane.AXIAL, np.random.default_rng(2))
    for seed in range(20):
        drawn = draw(np.random.default_rng(seed), NONE | {Artifact.CONTRAST: Severity.SEVERE}, slight=False)
        if drawn.shading_ratio > 2:
            break
    made = rendered(scan, drawn, np.random.default_rng(1))
    inside = made.fields.maps[3][made.fields.maps[0] > 0.9].astype(float)
    assert np.ptp(inside) == pytest.approx(np.log(made.measured["shading_ratio"]), rel=0.2)


def test_mirroring_twice_changes_nothing(its_head: Head) -> None:
    its = fields_of(its_head, Plane.SAGITTAL, 50, tilted=True)
    for axis in range(3):
        twice = its.mirrored(axis).mirrored(axis)
        assert np.array_equal(twice.maps, its.maps)
        assert np.array_equal(twice.pose, its.pose)
        assert not np.array_equal(its.mirrored(axis).maps, its.maps)


def test_the_loss_of_a_hand_worked_example() -> None:
    maps = np.zeros((7, *FIELD_SHAPE), np.float16)
    maps[0] = 1.0
    maps[4] = 0.5
    truth = batch_of([Fields(maps, np.ones(6, np.float32)), None], torch.device("cpu"))
    said = [torch.zeros(2, 7, *FIELD_SHAPE, requires_grad=True), torch.zeros(2, 6)]
    # brain: log 2; shading: right; displacement: |d| - .05, in one of three channels; pose: |d| - .15
    expected = 2 * np.log(2) + 2 * (0.5 - 0.05) / 3 + 2 * (1 - 0.15)
    loss = fields_loss(said, truth)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()  # type: ignore[no-untyped-call]
    assert said[0].grad is not None
    assert said[0].grad[0].abs().sum() > 0
    assert said[0].grad[1].abs().sum() == 0
    nothing = Drawn(*(each[:0] for each in truth))
    assert fields_loss([said[0][:0], said[1][:0]], nothing).item() == 0.0


def test_what_an_encoder_drew_is_seen_while_it_is_watched() -> None:
    torch.manual_seed(0)
    member, images = Member("field-unet", 2).eval(), torch.rand(2, 1, 40, 144, 144)
    with torch.no_grad():
        with watched(member.encoder) as said:
            member(images)
        member(images)
    assert [tuple(each.shape) for each in said] == [(2, 7, *FIELD_SHAPE), (2, 6)]
    with torch.no_grad(), watched(Member("plane-profiles", 2).encoder) as said:
        assert said == []
