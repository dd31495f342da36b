"""Public brains → heads with the tissue contrast, the scalp and the size that a low-field scan would show.

Label maps of whole heads can be given any contrast; of skull-stripped images the intensities are mapped to another
contrast, and skull, scalp and neck are built around them; phantoms are the project's own synthetic heads. All are set
upright first: they lie in their files as they lay in a scanner.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from qcnode.errors import ConfigError
from qcnode.imaging.anatomy import GRID_MM, draw_anatomy
from train.simulation.upright import (
    PRECISION_DEGREES,
    Codes,
    Reference,
    Shape,
    own_pose,
    reference_of,
    shape_of,
    turned,
)

Kind = Literal["labelmap", "adult", "child", "phantom"]

GROUPS = ("air", "csf", "grey", "white", "deep", "brainstem", "cerebellum", "skull", "scalp", "muscle", "eye", "dura")
_SYNTHSEG = {  # FreeSurfer's label numbers for the brain; from 501 the training maps' own for the rest of the head
    "csf": (4, 5, 14, 15, 24, 43, 44, 72, 163, 164),
    "grey": (3, 17, 18, 26, 42, 53, 54, 58, 136, 137),
    "white": (2, 7, 25, 30, 41, 46, 57, 62, 85),
    "deep": (10, 11, 12, 13, 49, 50, 51, 52),
    "brainstem": (16, 28, 60),
    "cerebellum": (8, 47),
    "skull": (502, 512, 515),
    "scalp": (508, 511),
    "muscle": (507, 530),
    "eye": (506, 509),
    "dura": (514, 516),
}

# Names under which the same image lies in the folder once more; it must not be in two parts of a split.
_TWINS = {
    "Template-Month3": "Template-Month0",
    "Template-Month18": "Template-Month12",
    "child-sub-0006": "child-sub-0001",
}
_UPRIGHT = Path("children_templates/Template-Month24-T1w.nii.gz")  # in a standard space, and of good contrast
_UPRIGHT_FACES = 180.0  # degrees: in its file the back of the head is where the axes say that the face is


@dataclass(frozen=True)
class Source:
    """One file of a subject. All files of one subject share `patient`, so that a split by patient is one by subject."""

    patient: int
    subject: str
    path: Path | None  # a phantom has none: its patient number seeds it
    kind: Kind
    weighting: str  # of the file: labels, T1w or T2w

    @property
    def name(self) -> str:
        """What tells it from the others: its file, or its subject where it has none."""
        return self.path.name if self.path else self.subject


@dataclass(frozen=True)
class Anatomy:
    """A source on an isotropic RAS grid, upright.

    codes: (x, y, z) uint8, tissue groups (an index into GROUPS) or intensities. brain: mask. tissue: 0 elsewhere,
    1 CSF, 2 grey, 3 white. outside: distance from the brain's hull in quarters of a millimetre, 0 inside; None where
    the source shows the whole head. centres: intensities of the dark, middle and bright tissue; None for label maps.
    """

    source: Source
    codes: NDArray[np.uint8]
    brain: NDArray[np.bool_]
    tissue: NDArray[np.uint8]
    outside: NDArray[np.uint8] | None
    centres: tuple[float, float, float] | None
    spacing_mm: float


def sources(folder: Path) -> list[Source]:
    """Every usable brain in the folder, in a fixed order, numbered by subject from 1."""
    found: list[tuple[str, Path, Kind, str]] = []
    for path in sorted(folder.glob("labelmaps/*.nii.gz")):
        found.append((path.name.split(".")[0], path, "labelmap", "labels"))
    for path in sorted(folder.glob("t1_skullstripped/*.nii.gz")):
        found.append(("adult-" + path.name.split("_")[0], path, "adult", "T1w"))
    for path in sorted(folder.glob("children_skullstripped/sub-*.nii.gz")):
        found.append(("child-" + path.name.split("_")[0], path, "child", _weighting(path)))
    for path in sorted(folder.glob("children_templates/*.nii.gz")):
        subject = re.sub(r"-T[12]w.*", "", path.name)  # both weightings show one template
        found.append((subject, path, "child", _weighting(path)))
    if not found:
        raise ConfigError(f"no brains in {folder}; name the folder that holds labelmaps/ and t1_skullstripped/")
    numbers: dict[str, int] = {}
    for subject, *_ in found:
        numbers.setdefault(subject, len(numbers) + 1)
    twins = {subject: numbers[twin] for subject, twin in _TWINS.items() if twin in numbers}
    return [Source(twins.get(s, numbers[s]), s, path, kind, w) for s, path, kind, w in found]


def phantoms(count: int) -> list[Source]:
    """Synthetic heads, numbered from 1001."""
    return [Source(1000 + n, f"phantom-{n:02d}", None, "phantom", "T2w") for n in range(1, count + 1)]


def _weighting(path: Path) -> str:
    return "T2w" if "T2w" in path.name else "T1w"


@lru_cache(maxsize=128)
def anatomy(source: Source) -> Anatomy:
    """Read a source, set it upright and prepare what every scan of it shares."""
    if source.path is None:
        return _from_phantom(source)
    codes, spacing_mm = _read(source.path)
    angles = own_pose(_shape(source, codes), _reference(source.path.parents[1]))
    if np.abs(angles).max() > PRECISION_DEGREES:
        codes = turned(codes, angles, labels=source.kind == "labelmap")
    if source.kind == "labelmap":
        return _from_labels(source, codes, spacing_mm)
    return _from_image(source, np.asarray(codes, np.uint8), spacing_mm)


def pose_in_file(source: Source) -> NDArray[np.float64]:
    """Nod, lean and turn (degrees, as `upright.own_pose` has them) with which the head lies in its file."""
    if source.path is None:
        return np.zeros(3)  # phantoms are drawn upright
    return own_pose(_shape(source, _read(source.path)[0]), _reference(source.path.parents[1]))


@lru_cache(maxsize=1)
def _reference(folder: Path) -> Reference:
    if not (path := folder / _UPRIGHT).exists():
        raise ConfigError(f"{path} is not there; put it there: all heads are set upright by it")
    source = Source(0, "upright", path, "child", "T1w")
    return reference_of(_shape(source, _read(path)[0]), _UPRIGHT_FACES)


def _read(path: Path) -> tuple[Codes, float]:
    """A file's labels or intensities along RAS axes, and the spacing in mm."""
    image = nib.as_closest_canonical(nib.load(path))
    return np.asanyarray(image.dataobj), float(image.header.get_zooms()[0])


def _shape(source: Source, codes: Codes) -> Shape:
    """The brain's shape; of label maps without the brainstem, which ends where the field of view did."""
    if source.kind == "labelmap":
        groups = _groups(codes)
        brain = (codes > 0) & (codes < 500) & (codes != 24) & (groups != GROUPS.index("brainstem"))
        return shape_of(brain, _tissue_of_groups(groups))
    intensities = np.asarray(codes, np.uint8)
    brain = np.asarray(ndimage.binary_fill_holes(intensities > 0))
    centres = _tissue_centres(intensities[brain], source.weighting)
    return shape_of(brain, _tissue(intensities, brain, centres, source.weighting))


def _groups(labels: Codes) -> NDArray[np.uint8]:
    group_of = np.zeros(1024, np.uint8)
    for group, numbers in _SYNTHSEG.items():
        group_of[list(numbers)] = GROUPS.index(group)
    return np.asarray(group_of[labels])


def _tissue_of_groups(groups: NDArray[np.uint8]) -> NDArray[np.uint8]:
    tissue_of = np.zeros(len(GROUPS), np.uint8)
    for value, names in ((1, ("csf",)), (2, ("grey", "cerebellum")), (3, ("white",))):
        tissue_of[[GROUPS.index(name) for name in names]] = value
    return np.asarray(tissue_of[groups])


def _from_labels(source: Source, labels: Codes, spacing_mm: float) -> Anatomy:
    labels = np.pad(labels[ndimage.find_objects((labels > 0).astype(np.uint8))[0]], 2)
    codes = _groups(labels)
    brain = (labels > 0) & (labels < 500) & (labels != 24)
    cerebellum = np.flatnonzero(np.isin(labels, (7, 8, 46, 47)).any(axis=(0, 1)))
    brain[:, :, : max(0, int(cerebellum[0] - 5 / spacing_mm))] = False  # the cord below is not brain
    pieces, _ = ndimage.label(brain)
    brain = pieces == np.bincount(pieces[brain]).argmax()
    return Anatomy(source, codes, brain, _tissue_of_groups(codes), None, None, spacing_mm)


def _from_image(source: Source, codes: NDArray[np.uint8], spacing_mm: float) -> Anatomy:
    codes = codes[ndimage.find_objects((codes > 0).astype(np.uint8))[0]]
    margin = int(40 / spacing_mm)  # room for skull and scalp, and for a neck below
    codes = np.pad(codes, ((margin, margin), (margin, margin), (2 * margin, margin // 2)))
    hull = ndimage.binary_closing(codes > 0, iterations=int(12 / spacing_mm))
    distance = ndimage.distance_transform_edt(~hull) * spacing_mm
    outside = np.minimum(distance * 4, 255).astype(np.uint8)
    brain = np.asarray(ndimage.binary_fill_holes(codes > 0))
    centres = _tissue_centres(codes[brain], source.weighting)
    return Anatomy(source, codes, brain, _tissue(codes, brain, centres, source.weighting), outside, centres, spacing_mm)


def _from_phantom(source: Source) -> Anatomy:
    drawn = draw_anatomy(np.random.default_rng(source.patient))
    codes = np.clip(drawn.signal * 170, 0, 255).astype(np.uint8)
    brain = drawn.brain > 0.5
    centres = _tissue_centres(codes[brain], source.weighting)
    return Anatomy(source, codes, brain, _tissue(codes, brain, centres, source.weighting), None, centres, GRID_MM)


def _tissue(
    codes: NDArray[np.uint8], brain: NDArray[np.bool_], centres: tuple[float, float, float], weighting: str
) -> NDArray[np.uint8]:
    low, high = (centres[0] + centres[1]) / 2, (centres[1] + centres[2]) / 2
    order = (1, 2, 3) if weighting == "T1w" else (3, 2, 1)
    return np.where(brain, np.choose((codes > low).astype(int) + (codes > high), order), 0).astype(np.uint8)


def _tissue_centres(values: NDArray[np.uint8], weighting: str) -> tuple[float, float, float]:
    """Intensities of the dark, the middle and the bright tissue.

    k-means on the histogram; where that finds no three tissues (grey and white look alike in a baby's first year), the
    percentiles that the tissues' usual volumes give.
    """
    count = np.bincount(values, minlength=256).astype(float)
    level = np.arange(256.0)
    centres = np.percentile(values, [8, 45, 85]).astype(float)
    for _ in range(30):
        nearest = np.abs(level[:, None] - centres).argmin(axis=1)
        centres = np.array([np.average(level[nearest == k], weights=count[nearest == k] + 1e-9) for k in range(3)])
    shares = np.array([count[nearest == k].sum() for k in range(3)]) / count.sum()
    if shares[1] < 0.25 or max(shares[0], shares[2]) > 0.6:
        centres = np.percentile(values, [3, 35, 78] if weighting == "T1w" else [22, 65, 97]).astype(float)
    dark, middle, bright = (float(c) for c in centres)
    return dark, middle, bright
