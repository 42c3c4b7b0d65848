from .haar.battery import (
    BatteryResult as BatteryResult,
    StatisticResult as StatisticResult,
    haar_battery as haar_battery,
)
from .haar.orthogonal import NotOrthogonalError as NotOrthogonalError, sample_haar as sample_haar
from .maps.checks import BadActivations as BadActivations
from .maps.cka import linear_cka as linear_cka
from .maps.explained_variance import explained_variance as explained_variance
from .maps.matching import max_cosine as max_cosine
from .maps.procrustes import Rotation as Rotation, fit_rotation as fit_rotation
from .measures.comparison import (
    Comparison as Comparison,
    MapScores as MapScores,
    compare as compare,
)

__version__: str
__all__: list[str]
