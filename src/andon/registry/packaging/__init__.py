"""Packages of models: what a version is made of, kept as plain files and loaded without running anybody's code.

Needs polars, numpy and ctypes only, so that a gateway may import it.
"""

from andon.registry.packaging.expressions import decode_expression, encode_expression
from andon.registry.packaging.features import (
    FeatureFunction,
    conform,
    differing,
    infer_signature,
    prove_row_local,
)
from andon.registry.packaging.lightgbm import Booster, tree_digest
from andon.registry.packaging.package import (
    LoadedModel,
    Manifest,
    Package,
    build_package,
    install,
    load,
    read_manifest,
)

__all__ = [
    # packages
    "LoadedModel",
    "Manifest",
    "Package",
    "build_package",
    "install",
    "load",
    "read_manifest",
    # features
    "FeatureFunction",
    "conform",
    "decode_expression",
    "differing",
    "encode_expression",
    "infer_signature",
    "prove_row_local",
    # LightGBM
    "Booster",
    "tree_digest",
]
