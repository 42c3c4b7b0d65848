from . import (
    optimiser as optimiser,
    optimiser_arms as optimiser_arms,
    optimiser_predictions as optimiser_predictions,
    record as record,
)
