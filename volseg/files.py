"""The back door: every file that volseg writes leaves by one atomic write, under a lock, with a journal.

A temporary is named `.volseg-tmp-<random><suffix>`, lies beside its target and is held by an flock while it
is written, so that `sweep_temporaries` tells what a killed run left from what a living one is writing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import math
import os
import secrets
import socket
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from volseg.checks import InputError, refuse

__all__ = [
    "Journal",
    "OutputLock",
    "check_writable",
    "fingerprint",
    "safe_name",
    "sha256_of",
    "sweep_temporaries",
    "write_atomically",
    "write_bytes",
    "write_json",
    "write_text",
]

logger = logging.getLogger(__name__)

_TEMPORARY = ".volseg-tmp-"
_LOCK = ".volseg.lock"
_NAME_BYTES = 200  # leaves room for "_disagreement.nii.gz" below the 255 bytes of common file systems
_PROBE_BYTES = 1 << 16
_held: set[str] = set()  # POSIX locks do not exclude a second holder in the same process


def write_atomically(
    path: str | Path,
    write: Callable[[Path], None],
    *,
    overwrite: bool = False,
    verify: Callable[[Path], None] | None = None,
) -> None:
    """Write a file so that it is whole under its final name, or not there at all.

    Args:
        path: the final name; its folder is created.
        write: called with the name of an empty temporary in the same folder and with the same suffix.
        overwrite: replace an existing file; without it, of two writers at most one wins.
        verify: called with the written temporary, to read it back; what it raises stops the write.

    Raises:
        InputError: when `path` exists and `overwrite` is False, or is a folder.
        OSError: naming `path`, when the file system refuses (disk full, read-only).

    Example:
        >>> folder = getfixture("tmp_path")
        >>> write_atomically(folder / "a.txt", lambda temporary: temporary.write_text("whole"))
        >>> (folder / "a.txt").read_text()
        'whole'
    """
    path = Path(path)
    _check_target(path, overwrite)
    temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}{_suffix(path.name)}")
    with _named_errors(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        held = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with contextlib.suppress(OSError):  # a file system without locks only loses the sweep's courtesy
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            write(temporary)
            _fsync(temporary)
            if verify is not None:
                verify(temporary)
            _publish(temporary, path, overwrite)
            _fsync(path.parent)
        finally:
            os.close(held)
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes, *, overwrite: bool = False) -> None:
    """Write bytes through `write_atomically`."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, write, overwrite=overwrite)


def write_text(path: str | Path, text: str, *, overwrite: bool = False) -> None:
    """Write UTF-8 text with unchanged line ends through `write_atomically`."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"), overwrite=overwrite)


def write_json(path: str | Path, obj: object, *, overwrite: bool = False) -> None:
    """Write an object as indented, standard JSON through `write_atomically`.

    NaN and infinities become null, which is all that JSON has for them; paths become strings, arrays lists.

    Raises:
        TypeError: when `obj` holds something else than JSON knows.

    Example:
        >>> path = getfixture("tmp_path") / "score.json"
        >>> write_json(path, {"dice": 0.5, "distance_mm": float("nan")})
        >>> json.loads(path.read_text())
        {'dice': 0.5, 'distance_mm': None}
    """
    text = json.dumps(_plain(obj), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n", overwrite=overwrite)


def safe_name(name: str) -> str:
    """Turn any case name into one component of a path; a good name stays as it is.

    Separators, invisible characters, a leading dash or dot and what exceeds 200 bytes are replaced; the name
    then ends in a hash of the original, so that distinct names stay distinct.

    Example:
        >>> safe_name("kidney 1 (größe)")
        'kidney 1 (größe)'
        >>> safe_name("../a")
        '_._a-61b4c98b'
    """
    safe = "".join("_" if _is_unsafe(character) else character for character in name)
    if not safe or safe[0] in "-.":
        safe = "_" + safe[1:]
    if safe == name and len(os.fsencode(safe)) <= _NAME_BYTES:
        return safe
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    kept = safe.encode("utf-8")[: _NAME_BYTES - 9].decode("utf-8", "ignore")
    return f"{kept}-{digest}"


def check_writable(folder: str | Path) -> None:
    """Find out before the work that a folder cannot take files: it is created and a probe is written.

    Raises:
        InputError: when the folder is read-only, full, or below something that is no folder.
    """
    folder = Path(folder)
    probe = folder / f"{_TEMPORARY}{secrets.token_hex(8)}.probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(os.urandom(_PROBE_BYTES))  # random: a compressing file system must not cheat
            _fsync(probe)
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "make room" if full else "give write permission"
        refuse(folder, "a folder that can be written", reason, f"{remedy} or choose another output folder")


def sweep_temporaries(folder: str | Path) -> int:
    """Remove what killed writers left in a folder and its direct subfolders; return how many files that was.

    A temporary that a living process is writing is left alone.
    """
    folder = Path(folder)
    count = 0
    for pattern in (f"{_TEMPORARY}*", f"*/{_TEMPORARY}*"):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                count += 1
    return count


def sha256_of(path: str | Path) -> str:
    """Hash a file's content, in constant memory."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(path: str | Path) -> str:
    """Tell cheaply whether an input file or folder changed: by the names, sizes and times of its files.

    Raises:
        InputError: when the input is missing or cannot be looked at.
    """
    path = Path(path)
    digest = hashlib.sha256()
    try:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        for file in files:
            state = file.stat()
            name = file.relative_to(path.parent)
            digest.update(os.fsencode(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\0"))
    except OSError as error:
        refuse(path, "a readable input", error.strerror or error, "check the path and its permissions")
    return digest.hexdigest()[:32]


class OutputLock:
    """Keep a second run out of an output folder, by an fcntl lock that dies with its process.

    Args:
        folder: an existing folder; `.volseg.lock` stays in it, empty while nobody holds the lock.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(os.path.realpath(folder)) / _LOCK
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            InputError: when another run holds it, with that run's process and host.
        """
        if str(self.path) in _held:
            self._refuse(f"process {os.getpid()} (this one)")
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(file, 256, 0).decode("utf-8", "replace").strip() or "another process"
            if error.errno in (errno.EACCES, errno.EAGAIN):
                os.close(file)
                self._refuse(holder)
            logger.warning("%s: a file system without locks; start no second run here", self.path)
        self._file = file
        _held.add(str(self.path))
        self._note(f"process {os.getpid()} on {socket.gethostname()}\n")

    def release(self) -> None:
        """Give the lock back; without effect when it is not held."""
        if self._file is None:
            return
        self._note("")
        os.close(self._file)
        self._file = None
        _held.discard(str(self.path))

    def __enter__(self) -> OutputLock:
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _note(self, holder: str) -> None:
        # A full disk must not cost the lock: the note only words the other run's refusal.
        with contextlib.suppress(OSError):
            if self._file is not None:
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, holder.encode(), 0)

    def _refuse(self, holder: str) -> None:
        expected = "an output folder that no other run is writing into"
        refuse(self.path.parent, expected, f"one held by {holder}", "wait for it or choose another folder")


class Journal:
    """Records of finished work, one JSON object per line, each on the disk before `append` returns.

    Example:
        >>> journal = Journal(getfixture("tmp_path") / "journal.jsonl")
        >>> journal.append({"case": "a", "status": "done"})
        >>> journal.records()
        [{'case': 'a', 'status': 'done'}]
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def records(self) -> list[dict[str, Any]]:
        """All whole records, oldest first; the cut last line of a killed run does not count."""
        found = []
        lines = self._content().split(b"\n")
        for number, line in enumerate(lines[:-1], start=1):
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if isinstance(record, dict):
                found.append(record)
            else:
                logger.warning("%s, line %d: not a record, ignored", self.path, number)
        return found

    def append(self, record: Mapping[str, object]) -> None:
        """Add one record.

        Raises:
            OSError: when it cannot be brought to the disk; nothing of it counts then.
        """
        # ASCII, so that a cut line is cut between characters, and so that no name can hold a line end.
        line = json.dumps(_plain(record), allow_nan=False).encode("ascii") + b"\n"
        with os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
                end = file.seek(self._content().rfind(b"\n") + 1)
                file.truncate()
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if end == 0:
            _fsync(self.path.parent)

    def _content(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else b""


def _check_target(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        refuse(path, "the name of a file", "a folder", "choose another name")
    if not overwrite and os.path.lexists(path):
        _refuse_existing(path)


def _refuse_existing(path: Path) -> None:
    refuse(path, "a new file", "one that exists", "pass --overwrite true or choose another output folder")


def _suffix(name: str) -> str:
    last = os.path.splitext(name)[1]
    if last.lower() not in (".gz", ".bz2", ".zst", ".xz"):
        return last
    return os.path.splitext(name[: -len(last)])[1] + last


def _publish(temporary: Path, path: Path, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, path)
        return
    try:
        os.link(temporary, path)  # unlike a rename, this never replaces
    except FileExistsError:
        _refuse_existing(path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV):
            raise
        _check_target(path, overwrite)  # a file system without hard links
        os.replace(temporary, path)


def _fsync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if not (path.is_dir() and error.errno == errno.EINVAL):  # some file systems cannot sync a folder
            raise
    finally:
        os.close(file)


@contextlib.contextmanager
def _named_errors(path: Path, temporary: Path) -> Iterator[None]:
    """Let an OSError name the final path: gzip gives none, the temporary's means nothing to anyone."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None


def _is_unsafe(character: str) -> bool:
    # Cc control, Cf invisible, Cs undecodable byte of a file name, Zl and Zp line and paragraph separators
    return character in "/\\" or unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _plain(obj: Any) -> Any:
    if isinstance(obj, Mapping):
        return {str(key): _plain(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple | set | frozenset):
        return [_plain(value) for value in (sorted(obj) if isinstance(obj, set | frozenset) else obj)]
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    if hasattr(obj, "tolist"):  # numpy and torch scalars and arrays
        return _plain(obj.tolist())
    if isinstance(obj, float) and not math.isfinite(obj):
        return None
    return obj
