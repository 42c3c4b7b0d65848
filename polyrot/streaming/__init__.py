"""Moments of more tokens than fit into memory, on one process or several."""
