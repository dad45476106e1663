"""The only reader of configuration files and environment."""

from gyrostat.config.changes import (
    diff,
    json_schema,
    loosened,
    render,
    store,
    stored,
    stored_values,
)
from gyrostat.config.declaration import Declaration, ModelSettings
from gyrostat.config.grammar import is_model_name
from gyrostat.config.reader import Loaded, digest_of, from_values, load, project_root
from gyrostat.config.secrets import secret
from gyrostat.config.watched import Watched

__all__ = [
    "Declaration", "Loaded", "ModelSettings", "Watched", "diff", "digest_of", "from_values", "is_model_name", "json_schema", "load",
    "loosened", "project_root", "render", "secret",
    "store", "stored", "stored_values",
]  # fmt: skip
