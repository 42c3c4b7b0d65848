"""One toy seed through five lenses, and its specification."""
