"""``benchmarks`` is a folder of the repository, not an installed package: its parent joins the import path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
