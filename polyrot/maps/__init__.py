"""The mathematics of two activation matrices; a @ r ~ b, a the sibling and b the anchor."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
