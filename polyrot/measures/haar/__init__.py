"""What the claims of section 5 measure: the rotations of a cohort against Haar measure."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
