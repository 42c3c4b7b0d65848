from . import (
    calibrated as calibrated,
    controls as controls,
    determinants as determinants,
    free as free,
    privileged as privileged,
    published as published,
    rotations as rotations,
    whitened as whitened,
)
