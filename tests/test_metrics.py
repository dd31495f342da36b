"""The figures, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    f1_score,
    fbeta_score,
    precision_score,
    recall_score,
)
from sklearn.metrics import log_loss as sklearn_log_loss

from qcnode.agreement import quadratic_kappa
from qcnode.ensemble.calibration import Calibration, named, probabilities
from train import metrics
from train.calibrate import fitted_calibration, log_loss

GENERATOR = np.random.default_rng(0)
TRUTH = GENERATOR.integers(0, 3, 200)
NAMED = np.where(GENERATOR.random(200) < 0.7, TRUTH, GENERATOR.integers(0, 3, 200))


def test_a_perfect_member_scores_one_everywhere() -> None:
    assert set(metrics.challenge_figures(TRUTH, TRUTH).values()) == {1.0}
    assert quadratic_kappa(TRUTH, TRUTH) == 1
    assert metrics.severe_recall(TRUTH, TRUTH) == 1


@pytest.mark.parametrize("named", [NAMED, np.minimum(NAMED, 1), np.zeros_like(NAMED)], ids=["all", "no severe", "zero"])
def test_the_fifteen_figures_are_scikit_learns(named: np.ndarray) -> None:
    figures = metrics.challenge_figures(TRUTH, named)
    expected = {}
    for average in ("weighted", "macro", "micro"):
        options = {"average": average, "zero_division": 0}
        expected[f"{average} precision"] = precision_score(TRUTH, named, **options)
        expected[f"{average} recall"] = recall_score(TRUTH, named, **options)
        expected[f"{average} f1"] = f1_score(TRUTH, named, **options)
        expected[f"{average} f2"] = fbeta_score(TRUTH, named, beta=2, **options)
        macro = average == "macro"
        expected[f"{average} accuracy"] = (balanced_accuracy_score if macro else accuracy_score)(TRUTH, named)
    assert len(figures) == 15
    assert figures == pytest.approx(expected)


def test_a_severity_that_nobody_has_counts_nought_in_the_macro_figures() -> None:
    """The challenge averages over all three severities, whatever the scans hold."""
    figures = metrics.challenge_figures(np.array([0, 0, 1]), np.array([0, 0, 1]))
    assert figures["macro recall"] == figures["macro accuracy"] == pytest.approx(2 / 3)
    assert figures["weighted recall"] == figures["micro recall"] == 1


def test_a_predictor_that_always_says_none_scores_what_the_challenges_table_makes_of_it() -> None:
    """LISA 2025's counts; macro F1 .294, micro .795, mean of fifteen .614, averaged over the seven artifacts."""
    counts = [(426, 60, 46), (398, 105, 29), (470, 47, 15), (504, 15, 13), (384, 78, 70), (375, 134, 23), (435, 56, 41)]
    truths = [np.repeat([0, 1, 2], count) for count in counts]
    figures = [metrics.challenge_figures(truth, metrics.majority(truth)) for truth in truths]
    assert np.mean([f["macro f1"] for f in figures]) == pytest.approx(0.294, abs=0.005)
    assert np.mean([f["micro f1"] for f in figures]) == pytest.approx(0.795, abs=0.02)
    assert np.mean([list(f.values()) for f in figures]) == pytest.approx(0.614, abs=0.015)


def test_the_figures_are_scikit_learns() -> None:
    assert metrics.macro_f1(TRUTH, NAMED) == pytest.approx(f1_score(TRUTH, NAMED, average="macro"))
    assert metrics.balanced_accuracy(TRUTH, NAMED) == pytest.approx(balanced_accuracy_score(TRUTH, NAMED))
    assert metrics.severe_recall(TRUTH, NAMED) == pytest.approx(recall_score(TRUTH, NAMED, average=None)[2])
    assert quadratic_kappa(TRUTH, NAMED) == pytest.approx(cohen_kappa_score(TRUTH, NAMED, weights="quadratic"))


def test_always_zero_on_the_challenges_counts_scores_what_its_arithmetic_says() -> None:
    truth = np.repeat([0, 1, 2], [426, 60, 46])  # Noise in LISA 2025
    assert metrics.macro_f1(truth, metrics.majority(truth)) == pytest.approx(2 * 0.8008 / 1.8008 / 3, abs=1e-3)


def test_a_severe_scan_called_clean_costs_kappa_more_than_one_called_moderate() -> None:
    far, near = TRUTH.copy(), TRUTH.copy()
    severe = np.flatnonzero(TRUTH == 2)[:10]
    far[severe], near[severe] = 0, 1
    assert quadratic_kappa(TRUTH, far) < quadratic_kappa(TRUTH, near) < 1


def test_an_interval_holds_its_value_and_grows_when_a_person_has_many_scans() -> None:
    many = metrics.measured(metrics.macro_f1, TRUTH, NAMED, [f"S{i}" for i in range(200)])
    few = metrics.measured(metrics.macro_f1, TRUTH, NAMED, [f"S{i // 40}" for i in range(200)])
    assert many.low < many.value < many.high
    assert many.value == few.value
    twice = metrics.measured(metrics.macro_f1, np.tile(TRUTH, 2), np.tile(NAMED, 2), [f"S{i}" for i in range(200)] * 2)
    assert twice.high - twice.low == pytest.approx(many.high - many.low, rel=0.25)


def test_a_perfect_members_intervals_are_one_however_rare_a_severity_is() -> None:
    truth = np.array([0] * 30 + [1] * 7 + [2] * 3)
    for figure in (metrics.macro_f1, metrics.balanced_accuracy, metrics.severe_recall, quadratic_kappa):
        found = metrics.measured(figure, truth, truth, [f"S{i}" for i in range(40)])
        assert (found.value, found.low, found.high) == (1, 1, 1)


def test_an_interval_is_as_wide_as_that_of_patients_drawn_again_where_no_severity_is_rare() -> None:
    found = metrics.measured(metrics.macro_f1, TRUTH, NAMED, [f"S{i}" for i in range(200)])
    again = np.random.default_rng(1).integers(200, size=(1000, 200))
    low, high = np.quantile([metrics.macro_f1(TRUTH[scans], NAMED[scans]) for scans in again], [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)


def test_confidence_that_is_always_right_is_calibrated_and_certainty_that_fails_is_not() -> None:
    truth = np.array([0, 1, 2, 0])
    assert metrics.calibration_error(np.eye(3)[truth], truth) == 0
    assert metrics.calibration_error(np.eye(3)[(truth + 1) % 3], truth) == 1


def test_a_subject_that_counts_twice_counts_as_two() -> None:
    weights = np.where(np.arange(200) < 60, 2.0, 1.0)
    truth, named = (np.concatenate([each, each[:60]]) for each in (TRUTH, NAMED))
    fifteen = list(metrics.challenge_figures(truth, named).values())
    assert metrics.challenge_mean(TRUTH, NAMED, weights) == pytest.approx(np.mean(fifteen))
    said = GENERATOR.dirichlet(np.ones(3), 200)
    twice = np.concatenate([said, said[:60]])
    assert metrics.calibration_error(said, TRUTH, weights) == pytest.approx(metrics.calibration_error(twice, truth))


def test_the_moved_interval_holds_the_true_calibration_error_more_often_and_its_own_always() -> None:
    """Members whose confidence is right in truth: their error is nought, and what is measured is chance."""
    generator = np.random.default_rng(8)
    subjects = [f"S{n // 8}" for n in range(160)]
    held = {True: 0, False: 0}
    for _ in range(10):
        said = generator.dirichlet((6, 1, 1), 160)
        truth = np.array([generator.choice(3, p=p) for p in said])

        def error(truth: np.ndarray, _: np.ndarray, weights: np.ndarray | None, said: np.ndarray = said) -> float:
            return metrics.calibration_error(said, truth, weights)

        for centred in held:
            found = metrics.measured(error, truth, truth, subjects, draws=200, centred=centred)
            held[centred] += found.low < 0.02
            assert found.low <= found.value <= found.high or not centred
    assert held[True] > held[False]


def test_the_fitted_calibration_recovers_overconfidence_and_the_true_frequencies() -> None:
    logits = GENERATOR.normal(size=(8000, 3)) * 2
    true = Calibration(1.0, (0.0, -1.0, -2.0))
    truth = np.array([GENERATOR.choice(3, p=p) for p in probabilities(logits, true)])
    fitted = fitted_calibration(logits * 3, truth)
    assert fitted.temperature == pytest.approx(3, rel=0.1)
    assert fitted.bias == pytest.approx(true.bias, abs=0.2)


def test_log_loss_is_what_is_left_after_the_calibration_that_makes_it_least() -> None:
    generator = np.random.default_rng(6)
    logits = generator.normal(size=(2000, 3)) * 2
    truth = np.array([generator.choice(3, p=p) for p in probabilities(logits, Calibration())])
    least = log_loss(logits, truth)
    assert least == pytest.approx(sklearn_log_loss(truth, probabilities(logits, Calibration())), rel=0.01)
    assert least == pytest.approx(log_loss(3 * logits + [0, 1, -2], truth), rel=1e-4)
    assert least < log_loss(generator.normal(size=(2000, 3)), truth)


def test_a_rare_severity_on_faint_signs_is_named_where_that_names_more_of_them_right() -> None:
    generator = np.random.default_rng(4)
    truth = generator.choice(3, 4000, p=[0.8, 0.1, 0.1]).astype(np.int64)
    faint = 1.5 * np.eye(3)[truth] + generator.standard_normal((4000, 3)) + np.log([0.8, 0.1, 0.1])
    fitted = fitted_calibration(faint, truth)
    found = probabilities(faint, fitted)
    plain, emphasised = found.argmax(axis=1), named(found, fitted.emphasis)
    assert fitted.emphasis[0] == 1.0 < fitted.emphasis[1]
    assert metrics.macro_f1(truth, emphasised) > metrics.macro_f1(truth, plain) + 0.01
    assert fitted_calibration(50 * np.eye(3)[truth], truth).emphasis == (1.0, 1.0, 1.0)  # nothing to make up for


def test_what_a_probability_counts_decides_what_is_named() -> None:
    found = np.array([[0.5, 0.4, 0.1], [0.9, 0.06, 0.04]])
    assert named(found, (1.0, 1.0, 1.0)).tolist() == [0, 0]
    assert named(found, (1.0, 2.0, 2.0)).tolist() == [1, 0]
