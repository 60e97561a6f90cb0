"""Reads a ``requirements.txt`` into its normal form, and refuses what would not mean the same elsewhere.

A version is immutable, so its requirements must stand by themselves: no other files, no local paths. Where packages
come from is this machine's affair (uv's or pip's configuration), and so is whether code is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from headrace.core import errors

MAX_SIZE = 1 << 20
"""Bytes."""

_COMMENT = re.compile(r"(^|\s)#.*$")
_NAME = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[^\]]*\])?\s*(?=$|[=<>!~;@,(\s])")
_OTHER_FILES = ("-r", "--requirement", "-c", "--constraint", "-e", "--editable")


def parse(content: bytes, where: str) -> tuple[str, ...]:
    """The requirements in ``content``, one each, sorted. Raises InvalidInput that names ``where`` and the line."""
    if len(content) > MAX_SIZE:
        raise errors.InvalidInput(f"{where} is larger than {MAX_SIZE >> 20} MiB: is it a requirements.txt?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise errors.InvalidInput(f"{where} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    found = set()
    for number, line in _lines(text):
        _refuse_foreign(line, f"{where}, line {number}")
        found.add(line)
    if not found:
        raise errors.InvalidInput(f"{where} names no package; remove it, or name what the model imports")
    return tuple(sorted(found, key=str.lower))


def name_of(requirement: str) -> str:
    """Normalized name of the distribution: ``Scikit_Learn[x]==1.4`` is ``scikit-learn``."""
    match = _NAME.match(requirement)
    return re.sub(r"[-_.]+", "-", match[1]).lower() if match else ""


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Logical lines with the number of their first one: continued by a backslash, without comments and spare space."""
    began, parts = 0, []
    for number, line in enumerate(text.splitlines(), 1):
        began = began or number
        stripped = _COMMENT.sub("", line).rstrip()
        parts.append(stripped.removesuffix("\\"))
        if stripped.endswith("\\"):
            continue
        whole = " ".join(" ".join(parts).split())
        if whole:
            yield began, whole
        began, parts = 0, []
    if whole := " ".join(" ".join(parts).split()):
        yield began, whole


def _refuse_foreign(line: str, where: str) -> None:
    option = re.split(r"[\s=]", line, maxsplit=1)[0]
    if option in _OTHER_FILES:
        raise errors.InvalidInput(
            f"{where}: {line!r} refers to another file, which the version would not have; write what is in it instead"
        )
    if option.startswith("-"):
        raise errors.InvalidInput(
            f"{where}: {option!r} belongs into the configuration of uv or pip on the machine that serves, not into a"
            " version; only packages may stand here (with --hash, if you like)"
        )
    if not name_of(line):
        raise errors.InvalidInput(
            f"{where}: {line!r} is no requirement: write NAME==VERSION; a file of this machine is not in the version"
        )
    if "file:" in line:
        raise errors.InvalidInput(f"{where}: {line!r} is a file of this machine, which the version would not have")
    unknown = [part for part in re.findall(r"\s(--[a-z-]+)", line) if part != "--hash"]
    if unknown:
        raise errors.InvalidInput(f"{where}: {unknown[0]!r} is not understood here; only --hash may follow a package")
