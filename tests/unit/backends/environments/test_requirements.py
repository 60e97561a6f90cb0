"""requirements.txt: one normal form, and only what means the same on every machine."""

from __future__ import annotations

import pytest

from headrace.backends.environments import requirements
from headrace.core import errors


def test_the_same_packages_written_differently_are_the_same() -> None:
    one = b"\xef\xbb\xbfnumpy==1.26.4\nscikit-learn == 1.4.2  # what it was trained with\n"
    other = b"# pinned\r\nscikit-learn   ==   1.4.2\r\n\r\nnumpy==1.26.4\r\nnumpy==1.26.4\r\n"
    found = requirements.parse(one, "r.txt")
    assert found == ("numpy==1.26.4", "scikit-learn == 1.4.2")
    assert requirements.parse(other, "r.txt") == found


def test_hashes_stay_with_their_package() -> None:
    text = b"six==1.17.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\nnumpy\n"
    assert requirements.parse(text, "r.txt") == ("numpy", "six==1.17.0 --hash=sha256:aa --hash=sha256:bb")


def test_markers_extras_and_urls_are_requirements() -> None:
    lines = ('pandas[parquet]>=2 ; python_version > "3"', "six @ https://example.org/six-1.whl#sha256=aa")
    assert requirements.parse("\n".join(lines).encode(), "r.txt") == lines


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("-r other.txt", "refers to another file"),
        ("--requirement=other.txt", "refers to another file"),
        ("-c limits.txt", "refers to another file"),
        ("-e .", "refers to another file"),
        ("--index-url https://example.org/simple", "configuration of uv or pip"),
        ("--no-binary :all:", "configuration of uv or pip"),
        ("./mine-1.0-py3-none-any.whl", "write NAME==VERSION"),
        ("/srv/mine", "write NAME==VERSION"),
        ("mine @ file:///srv/mine.whl", "a file of this machine"),
        ("six==1 --global-option=x", "only --hash"),
    ],
)
def test_what_is_not_in_the_version_is_refused_with_its_line(line: str, says: str) -> None:
    with pytest.raises(errors.InvalidInput, match=says) as caught:
        requirements.parse(f"numpy\n\n{line}\n".encode(), "models/r.txt")
    assert caught.value.message.startswith("models/r.txt, line 3: ")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"# nothing\n\n", "names no package"),
        (b"numpy\xff", "not UTF-8 text: .* at byte 5"),
        (b"#" * (requirements.MAX_SIZE + 1), "larger than 1 MiB"),
    ],
)
def test_what_is_no_requirements_file_is_refused(content: bytes, says: str) -> None:
    with pytest.raises(errors.InvalidInput, match=says):
        requirements.parse(content, "r.txt")


@pytest.mark.parametrize(
    ("requirement", "name"),
    [
        ("Scikit_Learn[x] ==1.4", "scikit-learn"),
        ("xgboost", "xgboost"),
        ("zope.interface>=5", "zope-interface"),
        ("six@https://example.org/six.whl", "six"),
        ("numpy;python_version>'3'", "numpy"),
        ("../six", ""),
    ],
)
def test_names_are_normalized(requirement: str, name: str) -> None:
    assert requirements.name_of(requirement) == name
