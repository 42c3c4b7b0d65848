"""What a run asks for, in plain values: sizes, counts and names of schedules.

Nothing is imported here, so that options and their help cost nothing.
"""

SCHEDULES = ("full", "long", "pipeline", "shipped", "short", "text", "tiny")
"""Names of `polyrot.workshop.profiles.PROFILES`."""

WIDTH = 128
"""Of the language models trained here."""
PYTHIA_WIDTH = 512
"""Of Pythia-70m's shape."""

CONTEXT = 256
"""Tokens of a sequence of a text."""
TOKENS = 65_536
"""To fit maps on, and as many to score on: the paper's 256 sequences of 256."""
DICTIONARY_SHARE = 2
"""Times as many tokens are dictionaries trained on."""

POSITIONS = 10_000_000
"""Positions over which Bar B is measured, as the paper does."""
LEAST_POSITIONS = 1_000_000
"""Those that are registered."""

LEAST_EV = 0.9
"""Explained variance that the registration asks of the sparse dictionaries."""

NEOX_CONTEXT = 128
"""Tokens of a sequence of the language models trained here."""
SKIP_POSITIONS = "--skip-positions"
"""The option that leaves the first positions of every sequence out."""
