"""Sparse autoencoders and transcoders: what they are, training many at once, loading others'."""
