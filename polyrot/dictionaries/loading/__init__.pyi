from . import (
    checked as checked,
    dictionary_learning as dictionary_learning,
    directory as directory,
    gemma_scope as gemma_scope,
    group as group,
    hooks as hooks,
    saelens as saelens,
    sparsify as sparsify,
    values as values,
)
from .directory import (
    load_sae as load_sae,
)
from .group import (
    read_group as read_group,
)
from .hooks import (
    hook_of as hook_of,
    site_of as site_of,
)
from .saelens import (
    CONFIGURATION as CONFIGURATION,
    WEIGHTS as WEIGHTS,
    save_sae as save_sae,
)
from .values import (
    BadDictionary as BadDictionary,
    LoadedDictionary as LoadedDictionary,
    Saved as Saved,
)
