"""Fuzz one parser with atheris (libFuzzer): ``python tests/fuzz/fuzz.py oip_rest -max_total_time=60``.

Install atheris first (``pip install atheris``; it is no dependency of the project). Without further paths the kept
corpus of the target is the start; new inputs go to a temporary folder, so that the corpus stays small and chosen by
hand. A finding is written as ``crash-…`` to the working folder: turn it into a file of the corpus, where
``test_corpus.py`` runs it for ever.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["headrace"]):
    import targets

CORPUS = Path(__file__).parent / "corpus"


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in targets.TARGETS:
        raise SystemExit(f"usage: fuzz.py TARGET [libFuzzer options]; targets: {', '.join(targets.TARGETS)}")
    name = sys.argv[1]
    with tempfile.TemporaryDirectory() as found:
        arguments = [sys.argv[0], *sys.argv[2:], found, str(CORPUS / name)]
        atheris.Setup(arguments, lambda data: targets.run(name, data))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
