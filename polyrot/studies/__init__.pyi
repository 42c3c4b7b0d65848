from . import (
    dictionaries as dictionaries,
    dictionaries_arms as dictionaries_arms,
    dictionaries_page as dictionaries_page,
    dictionaries_predictions as dictionaries_predictions,
    figure as figure,
    optimiser as optimiser,
    optimiser_arms as optimiser_arms,
    optimiser_frames as optimiser_frames,
    optimiser_page as optimiser_page,
    optimiser_predictions as optimiser_predictions,
    record as record,
)
