"""What holds for every test."""

from __future__ import annotations

import os

# Set in many containers. Users' machines have it not, and what a process prints stays in its buffer there: tests must
# see that.
os.environ.pop("PYTHONUNBUFFERED", None)
