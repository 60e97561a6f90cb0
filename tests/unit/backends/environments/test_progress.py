"""uv's lines as one line for people who wait."""

from __future__ import annotations

from headrace.backends.environments.progress import Progress


def test_a_build_from_begin_to_end() -> None:
    progress = Progress()
    assert str(progress) == "building its environment (looking for its packages)"
    lines = (
        "Resolved 7 packages in 298ms",
        "Downloading scipy (33.7MiB)",
        "Downloading numpy (17.4MiB)",
        " Downloaded numpy",
        "warning: something else",
        " Downloaded scipy",
        "Prepared 7 packages in 742ms",
        "Installed 7 packages in 34ms",
        " + numpy==1.26.4",
    )
    told = [str(progress).removeprefix("building its environment ") for line in lines if progress.feed(line)]
    assert told == [
        "(7 packages resolved)",
        "(7 packages resolved, 0 of 1 large ones downloaded, waiting for scipy 33.7MiB)",
        "(7 packages resolved, 0 of 2 large ones downloaded, waiting for scipy 33.7MiB and numpy 17.4MiB)",
        "(7 packages resolved, 1 of 2 large ones downloaded, waiting for scipy 33.7MiB)",
        "(7 packages resolved, 2 of 2 large ones downloaded)",
        "(7 packages resolved, 2 of 2 large ones downloaded, 7 installed)",
    ]


def test_many_downloads_are_shortened_and_builds_are_named() -> None:
    progress = Progress()
    progress.feed("Resolved 9 packages in 1ms")
    for number in range(6):
        progress.feed(f"Downloading p{number} (2.0MiB)")
    assert "and p3 2.0MiB and 2 more)" in str(progress)
    progress = Progress()
    progress.feed("Resolved 1 package in 1ms")
    assert progress.feed("   Building docopt==0.6.2")
    assert str(progress).endswith("(1 packages resolved, building docopt==0.6.2)")
