"""Studies: questions beside the registered claims, answered by a record and a page each.

A study writes its predictions down before it trains, measures, and says of each prediction how it
came out. It has no bar in the registration and never alters the ledger.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
