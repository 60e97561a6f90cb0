"""The folder in which environments are kept: what is there, who uses it, what may go.

``KEY/`` is a complete environment, moved there as a whole. ``.KEY.XXXX/`` is one that is being built, or what a killed
build left. Two files are locked: ``.KEY.build`` by whoever builds it, ``.KEY.use`` shared by those who use it, both by
whoever removes it. The kernel drops a lock with its process. Lock files stay: removing one would let two processes
lock different files.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from headrace.core import errors
from headrace.core.environments import MANIFEST, EnvironmentSpec


class Environment(msgspec.Struct, frozen=True):
    """A complete environment. ``at`` is when it was built, in seconds since 1970 (UTC); it took ``seconds``."""

    spec: EnvironmentSpec
    packages: dict[str, str]
    """Every installed distribution with its version."""
    python: str
    at: float
    seconds: float


def environment_of(python: str) -> str:
    """Key of the environment with this interpreter."""
    return Path(python).parents[1].name


class Lease:
    """A lock that is held until ``release``, or until the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class EnvironmentsFolder:
    """Calls are short but for ``remove``; none waits for a lock."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> Path:
        return self.root / key

    def python(self, key: str) -> Path:
        """The interpreter of an environment."""
        return self.path(key) / "bin" / "python"

    def complete(self, key: str) -> bool:
        return (self.path(key) / MANIFEST).is_file() and self.python(key).exists()

    # --- locks ---

    def use(self, key: str) -> Lease | None:
        """A share in the environment, so that nobody removes it. None while somebody does."""
        return self._lock(f".{key}.use", fcntl.LOCK_SH)

    def own(self, key: str) -> Lease | None:
        """The right to build it. None while somebody else builds or removes it."""
        return self._lock(f".{key}.build", fcntl.LOCK_EX)

    @contextmanager
    def _alone(self, key: str) -> Iterator[bool]:
        """Whether nobody builds or uses it; nobody begins to in the block."""
        building = self.own(key)
        using = self._lock(f".{key}.use", fcntl.LOCK_EX) if building is not None else None
        try:
            yield using is not None
        finally:
            for lease in (using, building):
                if lease is not None:
                    lease.release()

    def _lock(self, name: str, how: int) -> Lease | None:
        path = self.root / name
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise errors.StoreFailed(
                f"{path}: {error.strerror}; environments are kept there, environments.folder names another place"
            ) from error
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return Lease(descriptor)

    # --- building: only with ``own`` ---

    def begin(self, key: str) -> Path:
        """A new folder to build in; what earlier builds left is removed."""
        self._clear(key)
        if self.path(key).exists():
            # Not complete, or nobody would build it: its interpreter has gone, or somebody took files out of it.
            shutil.rmtree(self.path(key))
        return Path(tempfile.mkdtemp(prefix=f".{key}.", dir=self.root))

    def finish(self, built: Path, environment: Environment) -> None:
        """Move what was built to its place. From now on it is complete."""
        (built / MANIFEST).write_bytes(msgspec.json.encode(environment))
        built.chmod(0o755)  # a temporary folder is its owner's only
        built.rename(self.path(environment.spec.key))

    def _clear(self, key: str) -> None:
        for leftover in self.root.glob(f".{key}.*"):
            if leftover.is_dir():
                # An orphaned installer may still write into it; what is left then goes with the next build.
                shutil.rmtree(leftover, ignore_errors=True)

    # --- looking and removing ---

    def listing(self) -> list[Environment]:
        """Complete environments, oldest first."""
        paths = [path / MANIFEST for path in self.root.glob("[!.]*")]
        return sorted((self._read(path) for path in paths if path.is_file()), key=lambda environment: environment.at)

    @staticmethod
    def _read(path: Path) -> Environment:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Environment)
        except (OSError, msgspec.MsgspecError) as error:
            raise errors.StoreFailed(f"{path} cannot be read: {error}; remove its folder, it is built again") from error

    def remove(self, key: str) -> bool:
        """Remove an environment, and what killed builds of it left. False when a server uses it."""
        with self._alone(key) as alone:
            if not alone:
                return False
            path = self.path(key)
            if path.exists():
                # Under another name first: a removal that is killed leaves nothing that looks complete.
                doomed = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=self.root))
                path.rename(doomed / "removed")
            self._clear(key)
            return True

    def in_use(self, key: str) -> bool:
        """Somebody builds it or runs in it."""
        with self._alone(key) as alone:
            return not alone

    def leftovers(self) -> set[str]:
        """Keys of builds that ended before they were complete, or that are under way."""
        names = (path.name for path in self.root.glob(".*.*") if path.is_dir()) if self.root.is_dir() else ()
        return {name.split(".")[1] for name in names}

    def size(self, key: str) -> int:
        """Bytes of the files in an environment; some are shared with uv's cache."""
        return sum(file.lstat().st_size for file in _files(self.path(key)))


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
