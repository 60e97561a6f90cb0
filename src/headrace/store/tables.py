"""The tables as queries see them; ``migrations/`` makes them and holds keys, indexes and constraints."""

from __future__ import annotations

import sqlalchemy as sa


def _table(name: str, *columns: str) -> sa.TableClause:
    return sa.table(name, *(sa.column(column) for column in columns))


MODELS = _table("models", "name", "last_version")
VERSIONS = _table("versions", "model", "version", "draft")
VERSION_FILES = _table("version_files", "model", "version", "path", "digest", "size")
ALIASES = _table("aliases", "model", "alias", "version")
ALIAS_HISTORY = _table("alias_history", "id", "model", "alias", "version", "before", "who", "at")
TRUST = _table("trust", "digest", "who", "at")
EVENTS = _table("events", "id", "at", "who", "what", "subject", "before", "after", "why")
API_KEYS = _table("api_keys", "id", "name", "scopes", "endpoints", "digest", "created", "who", "expires", "revoked")
KEY_SET = _table("key_set", "id", "version", "secret_check")
ENDPOINTS = _table("endpoints", "name", "generation", "record")
ROLLOUTS = _table("rollouts", "id", "endpoint", "started_at", "ended", "rollout")
LEASES = _table("leases", "name", "holder", "token", "expires_at")
ANSWERS = _table("answers", "key", "fingerprint", "status", "headers", "body", "at")
EXPERIMENTS = _table("experiments", "id", "endpoint", "started", "definition")
EXPERIMENT_TALLIES = _table("experiment_tallies", "experiment", "arm", "hour", "tally")
