"""Everything that pytest learns of the suite is in fixtures/."""

pytest_plugins = [
    "pytester",
    "fixtures.options",
    "fixtures.workers",
    "fixtures.suite",
    "fixtures.cohorts",
    "fixtures.dictionaries",
    "fixtures.measurements",
    "fixtures.interventions",
    "fixtures.language",
    "fixtures.bars",
    "fixtures.figures",
]
