"""The population stability index: how far one distribution has moved from another.

PSI = sum over bins of (a - e) ln(a / e), with e the expected and a the actual share of a bin; the symmetric form of
the Kullback-Leibler divergence. Its usual reading (below 0.1 little change, above 0.25 a significant one) comes from
credit scoring (Siddiqi, Credit Risk Scorecards, 2006) and knows no sample size. Where nothing has changed,
PSI / (1/n + 1/m) follows a chi-squared distribution with one degree of freedom less than there are bins (Yurdakul &
Naranjo, Statistical properties of the population stability index, Journal of Risk Model Validation, 2020), so a value
that chance explains is not called a shift.
"""

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
MODERATE, LARGE = 0.1, 0.25
_NORMAL_99 = 2.3263
"""The 99th percentile of the standard normal distribution."""


def psi(expected: npt.ArrayLike, actual: npt.ArrayLike) -> float:
    """The index of two histograms over the same bins, each with at least one row.

    A bin that is empty on one side counts as half a row there; one that is empty on both sides does not count.
    """
    e, a = np.asarray(expected, np.float64), np.asarray(actual, np.float64)
    used = (e > 0) | (a > 0)
    e, a = _shares(e[used]), _shares(a[used])
    return float(np.sum((a - e) * np.log(a / e)))


def by_chance(bins: int, expected_rows: float, actual_rows: float) -> float:
    """The 99th percentile of the index if nothing has changed (Wilson and Hilferty's approximation)."""
    freedom = max(bins - 1, 1)
    spread = 2 / (9 * freedom)
    chi_squared = freedom * (1 - spread + _NORMAL_99 * spread**0.5) ** 3
    return float(chi_squared * (1 / expected_rows + 1 / actual_rows))


def reading(index: float, chance: float) -> str:
    """`stable`, `moderate shift` or `large shift`; or `too few rows` if chance explains so large an index."""
    if index < MODERATE:
        return "stable"
    if index <= chance:
        return "too few rows"
    return "moderate shift" if index <= LARGE else "large shift"


def edges(values: npt.ArrayLike, bins: int = 10) -> Numbers:
    """The inner edges of bins with about equally many values, ascending; ties may make them fewer.

    If the last edge is so frequent a value that its bin would be too large, greater values get a bin of their own.
    """
    inner, numbers = np.linspace(0, 1, bins + 1)[1:-1], np.asarray(values, np.float64)
    ends = np.unique(np.quantile(numbers, inner))
    crowded = np.count_nonzero(numbers >= ends[-1]) > numbers.size / bins + 1
    return np.append(ends, np.nextafter(ends[-1], np.inf)) if crowded else ends


def histogram(values: npt.ArrayLike, ends: Numbers) -> Numbers:
    """The number of values below the first edge, from each edge to the next, and from the last on."""
    places = np.searchsorted(ends, np.asarray(values, np.float64), side="right")
    return np.bincount(places, minlength=len(ends) + 1).astype(np.float64)


def _shares(counts: Numbers) -> Numbers:
    shares: Numbers = np.maximum(counts, 0.5) / counts.sum()
    return shares
