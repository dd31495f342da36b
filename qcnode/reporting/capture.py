"""The page: the verdict as a picture that any console can show, and as a Secondary Capture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from math import cos, pi, sin
from typing import NamedTuple

import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset

from qcnode.artifacts import Artifact, Severity
from qcnode.reporting.evidence import Evidence, plain
from qcnode.verdict import Assessment, Decision, Grade, slice_ranges, worst_in_slices

Colour = tuple[int, int, int]
Point = tuple[float, float]

WIDTH, HEIGHT = 1024, 768
_MARGIN = 40
_BACKGROUND: Colour = (13, 17, 23)
_RULE: Colour = (40, 48, 60)
_TEXT: Colour = (240, 243, 246)
_QUIET: Colour = (150, 160, 172)
# Okabe and Ito's colours, which the colour-blind can tell apart; the shape and the word say the same again.
_GREEN: Colour = (0, 178, 130)
_AMBER: Colour = (240, 180, 30)
_RED: Colour = (232, 74, 48)
_BLUE: Colour = (110, 170, 225)
_BAR_COLOURS: dict[Severity, Colour] = {Severity.NONE: (58, 72, 88), Severity.MODERATE: _AMBER, Severity.SEVERE: _RED}
_WORD_COLOURS: dict[Severity, Colour] = {**_BAR_COLOURS, Severity.NONE: _QUIET}
_NOTICE = "Research use. The machine proposes; a person decides."


class _Look(NamedTuple):
    """How a decision looks: its colour, its shape's corners (unit circle, y down), the mark in it, its word."""

    colour: Colour
    corners: tuple[Point, ...]
    mark: str
    word: str


def _polygon(corners: int, turn: float = 0.0) -> tuple[Point, ...]:
    angles = [2 * pi * (i + turn) / corners - pi / 2 for i in range(corners)]
    return tuple((cos(angle), sin(angle)) for angle in angles)


_LOOKS: dict[Decision, _Look] = {
    Decision.ACCEPT: _Look(_GREEN, _polygon(90), "check", "ACCEPT"),
    Decision.REVIEW: _Look(_AMBER, ((0, -0.94), (1, 0.84), (-1, 0.84)), "!", "REVIEW"),
    Decision.RESCAN: _Look(_RED, _polygon(8, 0.5), "cross", "RESCAN"),
    Decision.NOT_ASSESSABLE: _Look(_BLUE, _polygon(4), "?", "NOT ASSESSABLE"),
}


def capture(assessment: Assessment, source: Evidence) -> Dataset:
    """The page as a Secondary Capture in the source's study; no patient data is burned in."""
    picture = page(assessment, at=source.at, revision=source.revision, series_uid=source.series_uid)
    document: Dataset = SCImage(
        pixel_array=np.asarray(picture),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=source.headers[0].StudyInstanceUID,
        patient_orientation=("L", "P"),
        series_description="Image quality page",
        **source.placement("capture", series_number=93),
    )
    source.identify(document)
    document.PatientOrientation = ""
    document.Laterality = ""
    document.ConversionType = "WSD"
    document.DateOfSecondaryCapture = document.ContentDate
    document.TimeOfSecondaryCapture = document.ContentTime
    document.BurnedInAnnotation = "NO"
    return document


def page(
    assessment: Assessment, *, at: datetime | None = None, revision: int = 1, series_uid: str | None = None
) -> Image.Image:
    """The verdict in large letters, the reasons, three planes and seven bars: RGB, WIDTH × HEIGHT pixels."""
    image = Image.new("RGB", (WIDTH, HEIGHT), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    look = _LOOKS[assessment.verdict.decision]
    draw.rectangle((0, 0, WIDTH, 10), fill=look.colour)
    image.paste(_sign(look, 132), (_MARGIN, 34))
    _verdict(draw, look)
    has_picture = bool(assessment.preview or assessment.grades)
    _reasons(draw, assessment.verdict.reasons, bottom=376 if has_picture else 600)
    right = 560 if assessment.grades else WIDTH - _MARGIN
    _planes(image, assessment.preview, (_MARGIN, 396, right, 526 if assessment.pictures else 684))
    _slices(image, assessment, (_MARGIN, 538, right, 684))
    _bars(draw, assessment.grades, (592, 396, WIDTH - _MARGIN, 684))
    _foot(draw, assessment, at, revision, series_uid or assessment.series_uid)
    return image


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _sign(look: _Look, size: int) -> Image.Image:
    """The decision's shape with its mark, drawn four times larger and reduced: smooth edges."""
    big = 4 * size
    centre, radius = big / 2, big / 2 - 4

    def placed(points: Iterable[Point]) -> list[Point]:
        return [(centre + radius * x, centre + radius * y) for x, y in points]

    image = Image.new("RGB", (big, big), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    draw.polygon(placed(look.corners), fill=look.colour)
    width = round(radius * 0.17)
    if look.mark == "check":
        draw.line(placed([(-0.45, 0.02), (-0.12, 0.36), (0.48, -0.34)]), fill=_BACKGROUND, width=width, joint="curve")
    elif look.mark == "cross":
        draw.line(placed([(-0.4, -0.4), (0.4, 0.4)]), fill=_BACKGROUND, width=width)
        draw.line(placed([(-0.4, 0.4), (0.4, -0.4)]), fill=_BACKGROUND, width=width)
    else:
        below = 0.2 * radius if look.mark == "!" else 0
        draw.text((centre, centre + below), look.mark, _BACKGROUND, _font(round(radius)), "mm", stroke_width=12)
    return image.resize((size, size), Image.Resampling.LANCZOS)


def _verdict(draw: ImageDraw.ImageDraw, look: _Look) -> None:
    font = _largest(look.word, WIDTH - 2 * _MARGIN - 170, (112, 104, 96, 88, 80))
    draw.text((_MARGIN + 168, 100), look.word, look.colour, font, "lm", stroke_width=2)


def _largest(text: str, width: int, sizes: Sequence[int]) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return next((font for font in map(_font, sizes) if font.getlength(text) <= width), _font(sizes[-1]))


def _reasons(draw: ImageDraw.ImageDraw, reasons: Sequence[str], bottom: int) -> None:
    """The sentences, in the largest letters in which all of them fit."""
    top, width = 190, WIDTH - 2 * _MARGIN
    for size in (52, 46, 42, 38, 34, 30, 27, 24, 22, 20, 18, 16):
        paragraphs = [_wrapped(plain(reason), size, width) for reason in reasons]
        line, gap = round(size * 1.24), round(size * 0.3)
        if sum(len(lines) * line + gap for lines in paragraphs) <= bottom - top:
            break
    y = top
    for lines in paragraphs:
        for text in lines:
            draw.text((_MARGIN, y), text, _TEXT, _font(size))
            y += line
        y += gap


def _wrapped(text: str, size: int, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _font(size).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _planes(image: Image.Image, preview: Sequence[NDArray[np.uint8]], box: tuple[int, int, int, int]) -> None:
    """The sections side by side at one scale, so that the head has one size in all three."""
    if not preview:
        return
    left, top, right, bottom = box
    gap = 8
    room = right - left - gap * (len(preview) - 1)
    scale = min(room / sum(s.shape[1] for s in preview), (bottom - top) / max(s.shape[0] for s in preview))
    sizes = [(max(1, int(s.shape[1] * scale)), max(1, int(s.shape[0] * scale))) for s in preview]
    x = left
    for section, size in zip(preview, sizes, strict=True):
        picture = Image.fromarray(section).resize(size, Image.Resampling.BICUBIC)
        image.paste(picture.convert("RGB"), (x, top + (bottom - top - size[1]) // 2))
        x += size[0] + gap


def _slices(image: Image.Image, assessment: Assessment, box: tuple[int, int, int, int]) -> None:
    """Some of the slices that carry the worst grade, each with its number, under a line that names all of them."""
    worst = worst_in_slices(assessment.grades)
    if worst is None or not assessment.pictures:
        return
    grade, draw = assessment.grades[worst], ImageDraw.Draw(image)
    left, top, right, bottom = box
    of = f" of {len(assessment.sources)}" if assessment.sources else ""
    where = f", counted from {assessment.counted_from}" if assessment.counted_from else ""
    line = f"{worst.value}: {slice_ranges(grade.slices or ())}{of}{where}"
    draw.text((left, top + 8), line, _TEXT, _largest(line, right - left, (17, 15, 13, 11)), "lm")
    pictures = [(number, Image.fromarray(picture)) for number, picture in sorted(assessment.pictures.items())]
    gap, high = 8, bottom - top - 22
    room = (right - left - gap * (len(pictures) - 1)) / len(pictures)
    scale = min([high / max(p.height for _, p in pictures), room / max(p.width for _, p in pictures)])
    x = left
    for number, picture in pictures:
        width, height = max(2, int(picture.width * scale)), max(2, int(picture.height * scale))
        y = top + 22
        image.paste(picture.resize((width, height), Image.Resampling.BICUBIC).convert("RGB"), (x, y))
        draw.rectangle((x, y, x + width - 1, y + height - 1), outline=_BAR_COLOURS[grade.severity], width=2)
        label = (x + 6, y + 5)
        draw.text(label, str(number + 1), _TEXT, _font(16), stroke_width=2, stroke_fill=_BACKGROUND)
        x += width + gap


def _bars(draw: ImageDraw.ImageDraw, grades: Mapping[Artifact, Grade], box: tuple[int, int, int, int]) -> None:
    """One bar an artifact, divided as the probabilities of none, moderate and severe are."""
    left, top, right, bottom = box
    pitch = (bottom - top) / len(Artifact)
    start, end = left + 122, right - 150
    for row, (artifact, grade) in enumerate(grades.items()):
        y = top + (row + 0.5) * pitch
        certainty = f"{grade.severity.name.lower()}  {100 * grade.probabilities[grade.severity]:.0f} %"
        draw.text((left, y), artifact.value, _TEXT, _font(21), "lm")
        draw.text((right, y), certainty, _WORD_COLOURS[grade.severity], _font(19), "rm")
        x = float(start)
        for severity in Severity:
            width = grade.probabilities[severity] * (end - start)
            if width >= 1:
                draw.rectangle((x, y - 11, x + width - 1, y + 11), fill=_BAR_COLOURS[severity])
            x += width


def _foot(
    draw: ImageDraw.ImageDraw, assessment: Assessment, at: datetime | None, revision: int, series_uid: str | None
) -> None:
    """Which series, when and by which weights: enough to find it again, nothing that names the patient."""
    facts = [
        f"series …{series_uid[-12:]}" if series_uid else "",
        assessment.plane.value if assessment.plane else "",
        at.strftime("%Y-%m-%d %H:%M") if at else "",
        f"revision {revision}" if revision > 1 else "",
        f"ensemble {plain(assessment.ensemble)[:24]}" if assessment.ensemble else "",
    ]
    draw.line((_MARGIN, 704, WIDTH - _MARGIN, 704), fill=_RULE, width=2)
    draw.text((_MARGIN, 724), _NOTICE, _QUIET, _font(16), "lm")
    draw.text((_MARGIN, 748), "     ".join(fact for fact in facts if fact), _QUIET, _font(16), "lm")
