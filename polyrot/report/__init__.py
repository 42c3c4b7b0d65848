"""What a run shows: terminal, page, figures, records, comparison of runs."""
