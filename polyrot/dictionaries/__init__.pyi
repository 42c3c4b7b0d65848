from . import (
    activations as activations,
    carried as carried,
    collection as collection,
    groups as groups,
    loading as loading,
    sae as sae,
    sparsity as sparsity,
    training as training,
)
