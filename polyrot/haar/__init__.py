"""Is this orthogonal matrix a Haar draw?

>>> from polyrot.haar import haar_battery, sample_haar
>>> print(haar_battery(sample_haar(64, 1, rng)[0]))  # doctest: +SKIP

The battery, its statistics and nulls; the published criteria beside their calibrated forms; power
against alternatives (``python -m polyrot.haar power --d 64``). A verdict of Haar says nothing of
shared features: the polar factor of pure noise is exactly Haar. See `whitened_contrast` for that.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
