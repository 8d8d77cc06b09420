"""What leaves through the back door is whole, and nothing that exists is lost."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg import files
from volseg.checks import InputError
from volseg.files import (
    Journal,
    OutputLock,
    check_writable,
    fingerprint,
    safe_name,
    sha256_of,
    sweep_temporaries,
    write_atomically,
    write_bytes,
    write_json,
    write_text,
)


def full_disk(temporary):
    temporary.write_bytes(b"the first half")
    raise OSError(errno.ENOSPC, "No space left on device")


def refuse_syscall(number):
    def call(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return call


def test_a_written_file_is_whole_and_alone(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "größe\n")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "größe\n".encode()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.nii.gz", ".nii.gz"), ("a.v1.png", ".png"), ("a", ""), ("a b.2.nii.gz", ".nii.gz"), (".gz", "")],
)
def test_the_temporary_has_the_suffix_by_which_writers_choose_a_format(tmp_path, name, suffix):
    seen = []
    write_atomically(tmp_path / name, lambda temporary: seen.append(temporary))
    assert seen[0].parent == tmp_path
    assert seen[0].name.startswith(".volseg-tmp-")
    assert seen[0].name[len(".volseg-tmp-") + 16 :] == suffix


def test_an_existing_file_is_kept_and_the_writer_not_even_called(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(
        InputError, match=r"a: expected a new file, got one that exists; pass --overwrite true"
    ):
        write_atomically(tmp_path / "a", lambda temporary: pytest.fail("called"))
    write_text(tmp_path / "a", "asked for", overwrite=True)
    assert (tmp_path / "a").read_text() == "asked for"


def test_a_dangling_link_counts_as_existing(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="exists"):
        write_text(tmp_path / "a", "x")
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_is_no_target_even_with_overwrite(tmp_path):
    with pytest.raises(InputError, match="expected the name of a file, got a folder"):
        write_text(tmp_path, "x", overwrite=True)


def test_of_two_writers_one_wins_and_the_other_is_told(tmp_path):
    barrier, told = threading.Barrier(2), []

    def run(text):
        def write(temporary):
            temporary.write_text(text)
            barrier.wait(10)

        try:
            write_atomically(tmp_path / "a", write)
        except InputError as error:
            told.append((text, str(error)))

    threads = [threading.Thread(target=run, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 1
    assert (tmp_path / "a").read_text() != told[0][0]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path, overwrite):
    if overwrite:
        (tmp_path / "a.nii.gz").write_text("old")
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.nii\.gz'"):
        write_atomically(tmp_path / "a.nii.gz", full_disk, overwrite=overwrite)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"] * overwrite


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_an_interrupted_write_leaves_nothing(tmp_path, error):
    def write(temporary):
        temporary.write_text("half")
        raise error

    with pytest.raises(error):
        write_atomically(tmp_path / "a", write)
    assert not list(tmp_path.iterdir())


def test_what_does_not_verify_gets_no_name(tmp_path):
    def verify(temporary):
        raise InputError(f"read back {temporary.read_text()}")

    with pytest.raises(InputError, match="read back x"):
        write_atomically(tmp_path / "a", lambda temporary: temporary.write_text("x"), verify=verify)
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_hard_links_still_keeps_what_exists(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", refuse_syscall(errno.EPERM))
    write_text(tmp_path / "a", "x")
    assert (tmp_path / "a").read_text() == "x"

    def late(temporary):
        temporary.write_text("y")
        (tmp_path / "b").write_text("mine")

    with pytest.raises(InputError, match="exists"):
        write_atomically(tmp_path / "b", late)
    assert (tmp_path / "b").read_text() == "mine"


def test_another_fault_while_publishing_is_not_hidden(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", refuse_syscall(errno.EIO))
    with pytest.raises(OSError, match=r"Input/output error: '.*a'"):
        write_text(tmp_path / "a", "x")


def test_json_is_standard_json_whatever_it_holds(tmp_path):
    inside = {
        "nan": float("nan"),
        "array": np.arange(3),
        "path": Path("a/b"),
        "set": {2, 1},
        3: np.float32(0.5),
    }
    write_json(tmp_path / "a.json", {**inside, "name": "bad\udcffbyte, größe"})
    read = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert read["array"] == [0, 1, 2]
    assert (read["nan"], read["path"], read["set"], read["3"]) == (None, "a/b", [1, 2], 0.5)
    assert read["name"] == "bad\udcffbyte, größe"


def test_json_refuses_what_it_cannot_hold(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "a.json", {"a": object()})


@pytest.mark.parametrize(
    "name", ["case 1", "größe_日本", "a..b", "@output_dir", "$x", "[a] (b) 'c' #d %e", "a.b.c"]
)
def test_good_names_stay(name):
    assert safe_name(name) == name


@given(st.lists(st.text() | st.text("ab/\\.-\n", max_size=4), unique=True, max_size=30))
def test_any_names_become_distinct_components_of_a_path(names):
    safe = [safe_name(name) for name in names]
    assert len(set(safe)) == len(names)
    for name in safe:
        assert len(os.fsencode(name)) <= 200
        assert Path("x", name).name == name
        assert name.isprintable() or " " in name or not any(ord(c) < 32 for c in name)
        assert name[0] not in "-."


@pytest.mark.parametrize("name", ["é" * 240, "x" * 240, "..", "a\nb", "../../etc/passwd", "", "-rf", "a\0b"])
def test_bad_names_become_names_that_a_file_system_takes(tmp_path, name):
    folder = tmp_path / safe_name(name)
    folder.mkdir()
    (folder / f"{folder.name}_disagreement.nii.gz").touch()
    assert folder.parent == tmp_path


def test_a_writable_folder_is_created_and_left_empty(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "reason", "remedy"),
    [
        (errno.ENOSPC, "No space left on device", "make room"),
        (errno.EROFS, "Read-only file system", "give write permission"),
        (errno.EACCES, "Permission denied", "give write permission"),
    ],
)
def test_a_folder_that_takes_no_files_is_found_before_the_work(tmp_path, monkeypatch, number, reason, remedy):
    monkeypatch.setattr(Path, "write_bytes", refuse_syscall(number))
    with pytest.raises(InputError, match=f"can be written, got {reason}; {remedy} or choose another"):
        check_writable(tmp_path)


def test_a_folder_below_a_file_is_found_before_the_work(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(InputError, match="Not a directory"):
        check_writable(tmp_path / "a" / "b")


def test_a_sweep_takes_dead_temporaries_and_leaves_living_ones(tmp_path):
    (tmp_path / "case").mkdir()
    for folder in (tmp_path, tmp_path / "case"):
        (folder / ".volseg-tmp-00.nii.gz").touch()
        (folder / "result.nii.gz").touch()

    def write(temporary):
        temporary.write_text("alive")
        assert sweep_temporaries(tmp_path) == 2

    write_atomically(tmp_path / "case" / "a.nii.gz", write)
    assert (tmp_path / "case" / "a.nii.gz").read_text() == "alive"
    assert len(list(tmp_path.rglob("*.gz"))) == 3


CHILD = """
import sys, time
from volseg.files import OutputLock, write_atomically
lock = OutputLock(sys.argv[1])
lock.acquire()
def write(temporary):
    temporary.write_text("half")
    print("ready", flush=True)
    time.sleep(60)
write_atomically(sys.argv[1] + "/a.nii.gz", write)
"""


def test_a_killed_writer_leaves_no_result_and_no_lock(tmp_path):
    with subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\n"
        assert sweep_temporaries(tmp_path) == 0
        with pytest.raises(InputError, match=rf"got one held by process {child.pid} on .*; wait for it"):
            OutputLock(tmp_path).acquire()
        child.send_signal(signal.SIGKILL)
    assert not (tmp_path / "a.nii.gz").exists()
    with OutputLock(tmp_path):
        assert sweep_temporaries(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == [".volseg.lock"]


def test_a_lock_excludes_its_own_process_and_can_be_taken_again(tmp_path):
    with OutputLock(tmp_path), pytest.raises(InputError, match=r"this one"):
        OutputLock(tmp_path / ".." / tmp_path.name).acquire()
    lock = OutputLock(tmp_path)
    lock.acquire()
    lock.release()
    lock.release()
    assert lock.path.read_bytes() == b""


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(files.fcntl, "lockf", refuse_syscall(errno.ENOLCK))
    with OutputLock(tmp_path):
        assert "without locks" in caplog.text


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_journal_outlives_a_cut_last_line(tmp_path, cut):
    journal = Journal(tmp_path / "j.jsonl")
    assert journal.records() == []
    records = [{"case": "a\nb", "value": 1.5}, {"case": "größe", "value": None}]
    for record in records:
        journal.append(record)
    assert journal.records() == records
    journal.path.write_bytes(journal.path.read_bytes()[:-cut])
    assert journal.records() == records[:1]
    journal.append(records[1])
    assert journal.records() == records


def test_a_journal_line_that_is_damaged_does_not_count(tmp_path, caplog):
    journal = Journal(tmp_path / "j.jsonl")
    journal.path.write_text('{"case": "a"}\n\0\0\0\n[1]\n{"case": "b"}\n')
    assert journal.records() == [{"case": "a"}, {"case": "b"}]
    assert "line 2: not a record" in caplog.text


def test_a_fingerprint_tells_a_changed_input(tmp_path):
    folder = tmp_path / "slices"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(bytes(number))
    prints = [fingerprint(folder)]
    assert fingerprint(folder) == prints[0]
    os.utime(folder / "1.png", ns=(0, 123456789))
    prints.append(fingerprint(folder))
    (folder / "2.png").rename(folder / "3.png")
    prints.append(fingerprint(folder))
    write_bytes(folder / "3.png", b"longer", overwrite=True)
    prints.append(fingerprint(folder))
    (folder / "3.png").unlink()
    prints.append(fingerprint(folder))
    prints.append(fingerprint(folder / "1.png"))
    assert len(set(prints)) == len(prints)


def test_a_missing_or_looping_input_has_no_fingerprint(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, reason in (("none", "No such file"), ("loop", "Too many levels of symbolic links")):
        with pytest.raises(InputError, match=f"{name}: expected a readable input, got {reason}"):
            fingerprint(tmp_path / name)


def test_a_named_pipe_does_not_hang_the_fingerprint(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    before = time.monotonic()
    assert len(fingerprint(tmp_path / "pipe")) == 32
    assert time.monotonic() - before < 5


def test_a_checksum_is_that_of_the_content(tmp_path):
    write_bytes(tmp_path / "a", b"abc")
    assert sha256_of(tmp_path / "a").startswith("ba7816bf8f01cfea")
