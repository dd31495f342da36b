from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from reporting_cases import ASSESSMENTS, AT, PREVIEW, SEVERE, as_bytes, assessment, in_slices, swoop, ungraded

from qcnode.artifacts import Artifact
from qcnode.reporting.capture import HEIGHT, WIDTH, capture, page
from qcnode.reporting.evidence import evidence
from qcnode.verdict import Assessment, Grade, Severity

SIGN = (40, 34, 172, 166)  # where the sign stands, in pixels: left, top, right, bottom


def differs(one: Image.Image, other: Image.Image) -> bool:
    return bool(np.any(np.asarray(one) != np.asarray(other)))


@pytest.mark.parametrize("one", ASSESSMENTS.values(), ids=ASSESSMENTS)
def test_the_same_assessment_gives_the_same_picture(one: Assessment) -> None:
    first, second = page(one, at=AT), page(one, at=AT)
    assert (first.size, first.mode) == ((WIDTH, HEIGHT), "RGB")
    assert not differs(first, second)


def test_a_verdict_has_its_own_shape_as_well_as_its_own_colour() -> None:
    names = ("accept", "review", "rescan", "not_assessable")
    shapes = [np.asarray(page(ASSESSMENTS[name]).crop(SIGN)).max(axis=2) > 60 for name in names]
    for i, shape in enumerate(shapes):
        assert 0.3 < shape.mean() < 0.9
        for other in shapes[:i]:
            assert (shape != other).mean() > 0.05  # told apart without colour


def test_the_page_shows_the_planes_the_grades_and_the_revision() -> None:
    one = assessment(Motion=SEVERE)
    whole = page(one, at=AT)
    assert differs(whole, page(replace(one, preview=()), at=AT))
    assert differs(whole, page(replace(one, preview=tuple(p // 2 for p in PREVIEW)), at=AT))
    assert differs(whole, page(replace(one, grades={}), at=AT))
    assert differs(whole, page(one, at=AT, revision=2))


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_every_reason_is_drawn_and_none_runs_into_the_planes(count: int) -> None:
    reasons = assessment(**{a.value: SEVERE for a in Artifact}).verdict.reasons[:count]
    with_reasons = [np.asarray(page(shown(reasons[:n]))) for n in range(count + 1)]
    for fewer, more in pairwise(with_reasons):
        assert np.any(fewer[176:392] != more[176:392])
        assert not np.any(fewer[396:] != more[396:])


def shown(reasons: tuple[str, ...]) -> Assessment:
    one = ASSESSMENTS["rescan"]
    return replace(one, verdict=replace(one.verdict, reasons=reasons))


def test_the_slices_that_carry_the_worst_grade_are_shown_with_their_numbers() -> None:
    one = in_slices(swoop(12), slices=(2, 3, 4, 8))
    whole = page(one, at=AT)
    strip = (40, 538, 560, 684)
    assert differs(whole.crop(strip), page(replace(one, pictures={}), at=AT).crop(strip))
    brighter = {number: picture + 100 * (number == 8) for number, picture in one.pictures.items()}
    assert differs(whole.crop(strip), page(replace(one, pictures=brighter), at=AT).crop(strip))
    renumbered = {number + 1: picture for number, picture in one.pictures.items()}
    assert differs(whole.crop(strip), page(replace(one, pictures=renumbered), at=AT).crop(strip))
    assert not differs(
        whole.crop((570, 0, WIDTH, HEIGHT)), page(replace(one, pictures={}), at=AT).crop((570, 0, WIDTH, HEIGHT))
    )


def test_many_slices_or_odd_ones_stay_in_their_place() -> None:
    plain = np.asarray(page(in_slices(swoop(12))))
    for shape in ((200, 3), (3, 200), (1, 1), (256, 256)):
        pictures = {number: np.full(shape, 255, np.uint8) for number in range(5)}
        every_other = replace(SEVERE, slices=tuple(range(0, 40, 2)))
        one = replace(in_slices(swoop(12)), pictures=pictures)
        drawn = np.asarray(page(replace(one, grades={**one.grades, Artifact.ZIPPER: every_other})))
        assert not np.any(drawn[690:] != plain[690:])
        assert not np.any(drawn[:, 568:] != plain[:, 568:])


def test_nothing_is_cut_at_the_right_edge() -> None:
    for one in ASSESSMENTS.values():
        margin = np.asarray(page(one, at=AT, revision=12))[12:, WIDTH - 30 :]
        assert margin.max() < 60


def test_odd_previews_and_long_words_still_make_a_page() -> None:
    preview = tuple(np.full(shape, 200, np.uint8) for shape in ((3, 400), (500, 2), (1, 1)))
    assert page(replace(assessment(), preview=preview)).size == (WIDTH, HEIGHT)
    assert page(ungraded("x" * 90)).size == (WIDTH, HEIGHT)


def test_a_longer_bar_is_a_greater_probability() -> None:
    def red(probability: float) -> int:
        grade = Grade(Severity.SEVERE, (0.0, 1 - probability, probability))
        pixels = np.asarray(page(assessment(Motion=grade)))[396:684, 714:834].astype(int)
        return int(((pixels[..., 0] > 200) & (pixels[..., 1] < 110)).sum())

    assert red(0.4) < red(0.6) < red(0.95)


@pytest.mark.parametrize("one", ASSESSMENTS.values(), ids=ASSESSMENTS)
def test_the_secondary_capture_holds_the_page_and_says_where_it_comes_from(one: Assessment) -> None:
    source = evidence(as_bytes(swoop()), revision=3, ensemble=one.ensemble, at=AT)
    document = capture(one, source)
    expected = page(one, at=source.at, revision=3, series_uid=source.series_uid)
    assert np.array_equal(document.pixel_array, np.asarray(expected))
    assert document.PhotometricInterpretation == "RGB"
    assert document.BurnedInAnnotation == "NO"
    assert list(document.ImageType[:2]) == ["DERIVED", "SECONDARY"]
    assert document.InstanceNumber == 3
