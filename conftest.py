"""Everything that pytest learns of the suite is in fixtures/."""

pytest_plugins = [
    "pytester",
    "fixtures.threads",
    "fixtures.options",
    "fixtures.workers",
    "fixtures.suite",
    "fixtures.cohorts",
    "fixtures.dictionaries",
    "fixtures.measurements",
    "fixtures.published_scores",
    "fixtures.growth",
    "fixtures.haar",
    "fixtures.interventions",
    "fixtures.steering",
    "fixtures.stitching",
    "fixtures.language",
    "fixtures.architecture",
    "fixtures.bars",
    "fixtures.firing",
    "fixtures.similarity",
    "fixtures.figures",
]
