"""Artifacts on disk: what is shipped, what is cached, and what is built where neither is there."""

from polyrot.store.file import JSON, Artifact, StoreFull, digest, fingerprint
from polyrot.store.place import Retraining, begin_retraining, check_writable, only_readable
from polyrot.store.runtime import Runtime
from polyrot.store.shipped import (
    SHIPPED,
    SHIPPED_BUDGET,
    DamagedArtifact,
    read_manifest,
    ship,
    shipped_with_code,
    verify,
    write_manifest,
)
from polyrot.store.store import Checkpoint, Store, StoreWarning

__all__ = [
    "JSON",
    "SHIPPED",
    "SHIPPED_BUDGET",
    "Artifact",
    "Checkpoint",
    "DamagedArtifact",
    "Retraining",
    "Runtime",
    "Store",
    "StoreFull",
    "StoreWarning",
    "begin_retraining",
    "check_writable",
    "digest",
    "fingerprint",
    "only_readable",
    "read_manifest",
    "ship",
    "shipped_with_code",
    "verify",
    "write_manifest",
]
