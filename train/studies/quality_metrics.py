"""Image-quality metrics after MRIQC and FetMRQC: a network input → numbers that a forest can grade.

MRIQC: doi:10.1371/journal.pone.0184661. FetMRQC: doi:10.1016/j.media.2024.103282. They need tissue labels where these
take what Otsu's threshold finds: head (bright) and air (dark, without the zeros of padding); and within the head,
bright and dark tissue. In the equations x is a voxel's value, h is 1 in the head and 0 elsewhere, μ and σ are mean and
standard deviation. What has no source is said to be this project's own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

Image = NDArray[np.float32]
Values = NDArray[np.floating]
_TINY = 1e-6


class Regions(NamedTuple):
    """Which voxels are head and which air, and the threshold between dark and bright tissue of the head."""

    head: NDArray[np.bool_]
    air: NDArray[np.bool_]
    tissue: float


def quality_metrics(image: Image) -> dict[str, float]:
    """All metrics of one network input, (slice, row, column); finite for any image that is not constant."""
    regions = regions_of(image)
    head, air = image[regions.head].astype(np.float64), image[regions.air].astype(np.float64)
    bright, dark = head[head > regions.tissue], head[head <= regions.tissue]
    across = ("slice", "row", "column")
    return {
        "snr": snr(head),
        "snr_dietrich": snr_dietrich(head, air),
        "cnr": cnr(bright, dark, air),
        "cjv": cjv(bright, dark),
        "efc": entropy_focus(image[image > 0].astype(np.float64)),
        "fber": energy_ratio(head, air),
        "slice_correlation": slice_correlation(image, regions.head),
        "sharpness": sharpness(image, regions.head),
        "shading": shading(image, regions.head),
        **{f"spread_{name}": spread(image, regions.head, axis) for axis, name in enumerate(across)},
        **{f"off_centre_{name}": float(value) for name, value in zip(across, off_centre(regions), strict=True)},
        "head_share": head_share(regions.head),
        **{f"head_{name}": value for name, value in summary(head).items()},
        **{f"air_{name}": value for name, value in summary(air).items()},
    }


def snr(head: Values) -> float:
    """Mean over standard deviation of the head, μ/σ (Magnotta & Friedman 2006, doi:10.1007/s10278-006-0264-x).

    Higher is better.
    """
    return float(head.mean() / (head.std() + _TINY))


def snr_dietrich(head: Values, air: Values) -> float:
    """μ_head / (σ_air √(2 / (4 - π))) (Dietrich et al. 2007, doi:10.1002/jmri.20969). Higher is better."""
    return float(head.mean() / (np.sqrt(2 / (4 - np.pi)) * air.std() + _TINY))


def cnr(bright: Values, dark: Values, air: Values) -> float:
    """|μ_b - μ_d| / √(σ_b² + σ_d² + σ_air²) (MRIQC; Magnotta & Friedman 2006). Higher is better."""
    noise = np.sqrt(bright.var() + dark.var() + air.var())
    return float(abs(bright.mean() - dark.mean()) / (noise + _TINY))


def cjv(bright: Values, dark: Values) -> float:
    """Coefficient of joint variation, (σ_b + σ_d) / |μ_b - μ_d| (Ganzetti et al. 2016, doi:10.3389/fninf.2016.00010).

    Higher is worse: shading, motion.
    """
    return float((bright.std() + dark.std()) / (abs(bright.mean() - dark.mean()) + _TINY))


def entropy_focus(values: Values) -> float:
    """Entropy focus criterion (Atkinson et al. 1997, doi:10.1109/42.650886), as a share of its largest value.

    -Σ (x/m) ln(x/m) / (√N ln √N), m = √Σx². From 0, all energy in one voxel, to 1. Higher is worse: ghosts, blur.
    """
    share = values / (np.sqrt((values**2).sum()) + _TINY)
    root = np.sqrt(values.size)
    return float(-(share * np.log(share + 1e-16)).sum() / (root * np.log(root)))


def energy_ratio(head: Values, air: Values) -> float:
    """Foreground-background energy ratio, ln of median x²_head / median x²_air.

    MRIQC's (Shehzad et al. 2015, doi:10.3389/conf.fnins.2015.91.00047); the logarithm is this project's own.
    Higher is better.
    """
    return float(np.log((np.median(head**2) + _TINY) / (np.median(air**2) + _TINY)))


def slice_correlation(image: Image, head: NDArray[np.bool_]) -> float:
    """Median over k of Σ x'_k x'_{k+1} / √(Σ x'_k² Σ x'_{k+1}²), x'_k the k-th slice without its mean.

    FetMRQC's normalised cross-correlation, of neighbours alone, among the slices of which 2 % are head.
    Higher is better: less motion between slices, less noise.
    """
    inside = np.flatnonzero(head.mean(axis=(1, 2)) > 0.02)
    slices = image[inside].reshape(len(inside), -1).astype(np.float64)
    slices -= slices.mean(axis=1, keepdims=True)
    size = np.linalg.norm(slices, axis=1) + _TINY
    correlations = (slices[1:] * slices[:-1]).sum(axis=1) / (size[1:] * size[:-1])
    return float(np.median(correlations)) if len(correlations) else 0.0


def sharpness(image: Image, head: NDArray[np.bool_]) -> float:
    """Mean of √((S_r x)² + (S_c x)²) over the head, over μ_head.

    S_r and S_c: Sobel's operator along rows and columns, the difference [-1, 0, 1] along that axis, weights [1, 2, 1]
    along the other two (Sobel & Feldman 1968, doi:10.13140/RG.2.1.1912.4965; FetMRQC's filter_sobel).
    Lower is worse: blur.
    """
    rows, columns = (ndimage.sobel(image, axis=axis) for axis in (1, 2))
    return float(np.hypot(rows, columns)[head].mean() / (image[head].mean() + _TINY))


def shading(image: Image, head: NDArray[np.bool_]) -> float:
    """σ_head of ln(G(h x) / (G h + 10⁻³)), G a Gaussian of 2 slices and 12 pixels: slow changes of gain.

    This project's own, where MRIQC takes the range of a fitted bias field (INU); smoothed within the head alone by
    normalised convolution (Knutsson & Westin 1993, doi:10.1109/CVPR.1993.341081). Higher is worse.
    """
    sigma = (2, 12, 12)
    weight = ndimage.gaussian_filter(head.astype(np.float32), sigma)
    smooth = ndimage.gaussian_filter(np.where(head, image, 0).astype(np.float32), sigma) / (weight + 1e-3)
    return float(np.log(smooth[head] + _TINY).std())


def spread(image: Image, head: NDArray[np.bool_], axis: int) -> float:
    """max over k of |p_{k+1} - 2 p_k + p_{k-1}| / μ_head, p_k the mean of the k-th plane across the axis.

    This project's own: how far a plane stands out of its neighbours, as a zipper's line does, a band's edge, a slice
    that moved. Higher is worse.
    """
    other = tuple(a for a in range(image.ndim) if a != axis)
    profile = image.mean(axis=other, dtype=np.float64)
    return float(np.abs(np.diff(profile, n=2)).max() / (image[head].mean() + _TINY))


def off_centre(regions: Regions) -> NDArray[np.float64]:
    """|c - n/2| / (n/2) along each axis: c the mean of h's places, n the voxels along it. 0 is centred, 1 at the edge.

    This project's own; FetMRQC takes how much the centroid differs from slice to slice. Higher is worse: Positioning.
    """
    half = np.array(regions.head.shape) / 2
    centroid = np.array([index.mean() for index in np.nonzero(regions.head)])
    return np.asarray(np.abs(centroid + 0.5 - half) / half, np.float64)


def head_share(head: NDArray[np.bool_]) -> float:
    """Σ h / N, how much of the N voxels is head; in place of FetMRQC's volume of the brain mask.

    No direction: a small head and one that is cut off both have little.
    """
    return float(head.mean())


def summary(values: Values) -> dict[str, float]:
    """μ, σ, kurtosis (mean of (x - μ)⁴ / σ⁴, less 3), 5th and 95th percentile: MRIQC's summary statistics.

    No direction: of the head they tell contrast, of the air noise and ghosts.
    """
    low, high = np.quantile(values, [0.05, 0.95])
    kurtosis = float(stats.kurtosis(values)) if values.std() > _TINY else 0.0
    return {"mean": values.mean(), "std": values.std(), "kurtosis": kurtosis, "p05": float(low), "p95": float(high)}


def regions_of(image: Image) -> Regions:
    """Head and air by Otsu's threshold, the head's tissues by another in it (doi:10.1109/TSMC.1979.4310076)."""
    positive = image[image > 0]
    threshold = otsu(positive)
    head = image > threshold
    air = (image > 0) & ~head
    return Regions(head, air if air.any() else ~head, otsu(image[head]))


def otsu(values: Values) -> float:
    """The threshold t of the largest n_0 n_1 (μ_0 - μ_1)², groups 0 and 1 being the values below and above t."""
    count, edges = np.histogram(
        values, bins=256, range=(float(values.min()), float(np.quantile(values, 0.995)) + _TINY)
    )
    centre = (edges[1:] + edges[:-1]) / 2
    below, total = np.cumsum(count)[:-1].astype(np.float64), np.cumsum(count * centre)[:-1]
    above, rest = count.sum() - below, (count * centre).sum() - total
    between = below * above * (total / np.maximum(below, 1) - rest / np.maximum(above, 1)) ** 2
    return float(edges[1:-1][int(between.argmax())])
