"""What a scale must offer to be judged: models, sites, activations, interventions."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
