"""polyrot: are two networks' activations one structure, seen through a rotation?

The functions that most people want, loaded when they are first used: importing polyrot imports
neither torch nor SciPy.

>>> import numpy as np
>>> import polyrot
>>> rng = np.random.default_rng(0)
>>> anchor = rng.standard_normal((2000, 16)) * np.linspace(1, 4, 16)
>>> turn = polyrot.sample_haar(16, 1, rng)[0]
>>> found = polyrot.compare(anchor @ turn.T, anchor)
>>> found.naive_ev < 0 < 0.999 < found.rotated_ev
True

`a` is the sibling and `b` the anchor throughout, rows are tokens, and a @ r ~ b. NumPy arrays and
lists give NumPy arrays, torch tensors give torch tensors. `polyrot --help` has the same for files.
"""

import lazy_loader

#: The one place where the version is written: the package's metadata is made from it.
__version__ = "0.2.0"

__getattr__, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = [*_names, "__version__"]  # made from the stub
