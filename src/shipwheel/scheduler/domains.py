"""Sums over topology domains: from numbers of nodes to numbers of the domains that the nodes are in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shipwheel.scheduler.table import Floats, LabelColumn


def totals(column: LabelColumn, values: npt.NDArray[np.number], size: int) -> Floats:
    """For each row, the sum of `values` over all rows of its domain; 0 for rows in none.

    Where every domain is a single node there is nothing to add up.
    """
    codes = column.codes[:size]
    if column.distinct:
        return np.where(codes >= 0, values[:size], 0).astype(np.float64)
    return by_domain(column, values, size)[codes + 1]


def by_domain(column: LabelColumn, values: npt.NDArray[np.number], size: int) -> Floats:
    """The sum for each code, shifted by one: entry 0 stands for rows that are in no domain, and is 0."""
    sums = np.bincount(column.codes[:size] + 1, weights=values[:size], minlength=column.size + 1).astype(np.float64)
    sums[0] = 0
    return sums
