"""Is this orthogonal matrix a Haar draw?

>>> from polyrot.haar import haar_battery, sample_haar
>>> print(haar_battery(sample_haar(64, 1, rng)[0]))  # doctest: +SKIP

The battery, its statistics and nulls; the published criteria beside their calibrated forms; power
against alternatives (``python -m polyrot.haar power --d 64``). A verdict of Haar says nothing of
shared features: the polar factor of pure noise is exactly Haar. See `whitened_contrast` for that.
"""

from polyrot.haar.alternatives import ALTERNATIVES
from polyrot.haar.battery import BatteryResult, StatisticResult, haar_batteries, haar_battery, holm
from polyrot.haar.frames import (
    WhitenedContrast,
    common_rank,
    relative_rotations,
    shuffled_rows,
    whitened_contrast,
    whitened_map,
)
from polyrot.haar.nulls import DEFAULT_DRAWS, NULL_SEED, NullTable, Tail, null_table
from polyrot.haar.orthogonal import (
    NotOrthogonalError,
    as_orthogonal,
    determinant_sign,
    polar,
    sample_haar,
)
from polyrot.haar.permutations import (
    NearestPermutation,
    nearest_permutation,
    nearest_signed_permutation,
    permutation_distances,
)
from polyrot.haar.power import PowerTable, power_table
from polyrot.haar.published import (
    CalibratedKS,
    MeanTest,
    PublishedKS,
    calibrated_ks,
    exchange_p_value,
    frobenius_distances,
    frobenius_ratio,
    mean_cosine_test,
    mean_permutation_test,
    published_ks,
)
from polyrot.haar.spectrum import (
    Coset,
    angles,
    eigenphases,
    expected_count,
    fold,
    ks_distance_to_haar,
    mean_cosine,
    sample_angles,
)
from polyrot.haar.statistics import (
    BATTERY_NAMES,
    block_energy_moments,
    class_statistics,
    diagonal_energy_variance,
    entry_statistics,
    frobenius_distance_moments,
    frobenius_squared_moments,
    one_p_value,
    s4_mean,
)

__all__ = [
    "ALTERNATIVES",
    "BATTERY_NAMES",
    "DEFAULT_DRAWS",
    "NULL_SEED",
    "BatteryResult",
    "CalibratedKS",
    "Coset",
    "MeanTest",
    "NearestPermutation",
    "NotOrthogonalError",
    "NullTable",
    "PowerTable",
    "PublishedKS",
    "StatisticResult",
    "Tail",
    "WhitenedContrast",
    "angles",
    "as_orthogonal",
    "block_energy_moments",
    "calibrated_ks",
    "class_statistics",
    "common_rank",
    "determinant_sign",
    "diagonal_energy_variance",
    "eigenphases",
    "entry_statistics",
    "exchange_p_value",
    "expected_count",
    "fold",
    "frobenius_distance_moments",
    "frobenius_distances",
    "frobenius_ratio",
    "frobenius_squared_moments",
    "haar_batteries",
    "haar_battery",
    "holm",
    "ks_distance_to_haar",
    "mean_cosine",
    "mean_cosine_test",
    "mean_permutation_test",
    "nearest_permutation",
    "nearest_signed_permutation",
    "null_table",
    "one_p_value",
    "permutation_distances",
    "polar",
    "power_table",
    "published_ks",
    "relative_rotations",
    "s4_mean",
    "sample_angles",
    "sample_haar",
    "shuffled_rows",
    "whitened_contrast",
    "whitened_map",
]
