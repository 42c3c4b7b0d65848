"""Sparse autoencoders and transcoders: what they are, training many at once, loading others'."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
