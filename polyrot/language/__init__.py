"""Language models: GPT-NeoX trained here, Pythia's seeds, any pair of checkpoints."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
