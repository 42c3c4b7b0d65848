from . import (
    cohort as cohort,
    copies as copies,
    departures as departures,
    interventions as interventions,
    run as run,
)
