from . import (
    alternatives as alternatives,
    battery as battery,
    figure as figure,
    frames as frames,
    nulls as nulls,
    orthogonal as orthogonal,
    permutations as permutations,
    power as power,
    published as published,
    spectrum as spectrum,
    statistics as statistics,
)
from .alternatives import (
    ALTERNATIVES as ALTERNATIVES,
)
from .battery import (
    BatteryResult as BatteryResult,
    StatisticResult as StatisticResult,
    haar_batteries as haar_batteries,
    haar_battery as haar_battery,
    holm as holm,
)
from .frames import (
    WhitenedContrast as WhitenedContrast,
    common_rank as common_rank,
    relative_rotations as relative_rotations,
    shuffled_rows as shuffled_rows,
    whitened_contrast as whitened_contrast,
    whitened_map as whitened_map,
)
from .nulls import (
    DEFAULT_DRAWS as DEFAULT_DRAWS,
    NULL_SEED as NULL_SEED,
    NullTable as NullTable,
    Tail as Tail,
    null_table as null_table,
)
from .orthogonal import (
    NotOrthogonalError as NotOrthogonalError,
    as_orthogonal as as_orthogonal,
    determinant_sign as determinant_sign,
    polar as polar,
    sample_haar as sample_haar,
)
from .permutations import (
    NearestPermutation as NearestPermutation,
    nearest_permutation as nearest_permutation,
    nearest_signed_permutation as nearest_signed_permutation,
    permutation_distances as permutation_distances,
)
from .power import (
    PowerTable as PowerTable,
    power_table as power_table,
)
from .published import (
    CalibratedKS as CalibratedKS,
    MeanTest as MeanTest,
    PublishedKS as PublishedKS,
    calibrated_ks as calibrated_ks,
    exchange_p_value as exchange_p_value,
    frobenius_distances as frobenius_distances,
    frobenius_ratio as frobenius_ratio,
    mean_cosine_test as mean_cosine_test,
    mean_permutation_test as mean_permutation_test,
    published_ks as published_ks,
)
from .spectrum import (
    Coset as Coset,
    angles as angles,
    eigenphases as eigenphases,
    expected_count as expected_count,
    fold as fold,
    ks_distance_to_haar as ks_distance_to_haar,
    mean_cosine as mean_cosine,
    sample_angles as sample_angles,
)
from .statistics import (
    BATTERY_NAMES as BATTERY_NAMES,
    block_energy_moments as block_energy_moments,
    class_statistics as class_statistics,
    diagonal_energy_variance as diagonal_energy_variance,
    entry_statistics as entry_statistics,
    frobenius_distance_moments as frobenius_distance_moments,
    frobenius_squared_moments as frobenius_squared_moments,
    one_p_value as one_p_value,
    s4_mean as s4_mean,
)
