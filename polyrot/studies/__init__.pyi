from . import (
    dictionaries_arms as dictionaries_arms,
    figure as figure,
    optimiser as optimiser,
    optimiser_arms as optimiser_arms,
    optimiser_frames as optimiser_frames,
    optimiser_page as optimiser_page,
    optimiser_predictions as optimiser_predictions,
    record as record,
)
