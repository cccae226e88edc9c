"""common.locking: a folder has one process, however the last one has ended, and the next one says so."""

import errno
import os
import resource
import signal
import subprocess
import sys
import threading

import pytest

from common import InputError, locking
from common.locking import LOCK, lock_folder, unlocking_folders
from tests.starting import ROOT

CODE = """
import os, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is to leave no file
from common import errors_in_one_line
from common.locking import lock_folder, unlocking_folders
with errors_in_one_line("stopped"), unlocking_folders():
    lock_folder(Path(sys.argv[1]))
    print("here", flush=True)
    sys.stdin.read()
    {then}
"""


def start(folder, then="pass"):
    """A process of its own that locks the folder, and then waits for the end of its input."""
    words = [sys.executable, "-c", CODE.format(then=then), str(folder)]
    process = subprocess.Popen(
        words, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == "here\n"
    return process


def refused(folder):
    """What a process of its own says that is kept out of the folder: one line, status 2."""
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(then="pass"), str(folder)], cwd=ROOT, text=True, input="", capture_output=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    return done.stderr


@pytest.fixture
def first(tmp_path):
    """A process that has locked the folder `run`, which was not there before."""
    process = start(tmp_path / "run")
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path, first, capsys):
    with unlocking_folders(), pytest.raises(InputError, match=f"run is in use by process {first.pid} on .+; wait for its end"):
        lock_folder(tmp_path / "run")
    assert f"in use by process {first.pid} on " in refused(tmp_path / "run")  # the try has not given it free
    first.communicate("")
    with unlocking_folders():
        lock_folder(tmp_path / "run")
        lock_folder(tmp_path / "run")  # the same process may
        lock_folder(tmp_path / "other")
        assert f"in use by process {os.getpid()} on " in refused(tmp_path / "run")
    start(tmp_path / "run").communicate("")
    assert capsys.readouterr().out == ""
    assert [path.stat().st_size for path in tmp_path.glob("*/*")] == [0, 0] and os.listdir(tmp_path / "run") == [LOCK]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGSEGV])
def test_a_process_that_is_killed_leaves_no_lock_but_word_of_it(tmp_path, first, capsys, number):
    first.send_signal(number)
    assert first.wait() == -number
    said = []
    for _ in range(2):
        with unlocking_folders():
            lock_folder(tmp_path / "run")
        said.append(capsys.readouterr().out)
        assert (tmp_path / "run" / LOCK).read_bytes() == b""
    assert said[0].startswith(f"{tmp_path}/run: the last start, process {first.pid} on ") and said[0].count("\n") == 1
    assert said[0].endswith(" was killed or crashed; this one resumes where it stopped\n") and said[1] == ""


@pytest.mark.parametrize(("then", "status"), [("raise KeyboardInterrupt", 130), ("1 / 0", 1), ("sys.exit(3)", 3)])
def test_a_process_that_says_why_it_ends_has_ended_by_itself(tmp_path, capsys, then, status):
    process = start(tmp_path, then)
    process.communicate("")
    assert process.returncode == status
    with unlocking_folders():
        lock_folder(tmp_path)
    assert capsys.readouterr().out == ""


def test_a_child_that_outlives_its_process_does_not_keep_the_lock(tmp_path, capsys):
    """Of a fork, which has all open files of its parent: the lock is the parent's alone."""
    process = start(tmp_path, "child = os.fork() or __import__('time').sleep(60); print(child, flush=True); os._exit(0)")
    process.stdin.close()
    child = int(process.stdout.readline())
    try:
        assert process.wait() == 0
        with unlocking_folders():
            lock_folder(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)
    assert "was killed or crashed" in capsys.readouterr().out


def test_one_of_many_that_start_at_once_is_let_in(tmp_path):
    words, outcomes = [sys.executable, "-c", CODE.format(then="pass"), str(tmp_path / "run")], []

    def one():
        process = subprocess.Popen(words, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        outcomes.append((process, process.stdout.readline()))

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said for _, said in outcomes) == [*[""] * 5, "here\n"]
    statuses = [(process.communicate(""), process.returncode)[1] for process, _ in outcomes]
    assert sorted(statuses) == [0, *[2] * 5]


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/.lock cannot be written: "):
        lock_folder(tmp_path / "file")
    (tmp_path / "run" / LOCK).mkdir(parents=True)
    with pytest.raises(InputError, match="run/.lock cannot be written: Is a directory"):
        lock_folder(tmp_path / "run")


def test_a_full_disk_is_one_line_and_leaves_no_lock(tmp_path, capsys):
    """A limit on file sizes fails the write as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(InputError, match=f"^{tmp_path}/.lock cannot be written: File too large$"):
            lock_folder(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    start(tmp_path).communicate("")
    with unlocking_folders():
        lock_folder(tmp_path)
    assert capsys.readouterr().out == ""


def test_what_stands_in_the_lock_is_shown_as_text(tmp_path, capsys):
    """Whoever can write to the folder would else write to the terminal."""
    (tmp_path / ".lock").write_bytes(b"process 1 \x1b]0;title\x07\n")
    with unlocking_folders():
        lock_folder(tmp_path)
    assert "\x1b" not in (out := capsys.readouterr().out) and "process 1 " in out


def test_a_drive_without_locks_is_used_all_the_same_and_says_so(tmp_path, monkeypatch, capsys):
    def lockf(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locking.fcntl, "lockf", lockf)
    with unlocking_folders():
        lock_folder(tmp_path)
    assert capsys.readouterr().out.startswith(f"{tmp_path}/.lock: no locks on this drive (No locks available); see to it")


def test_where_there_is_no_fcntl_the_next_start_still_knows(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locking, "fcntl", None)
    process = start(tmp_path)
    process.kill()
    process.communicate()
    with unlocking_folders():
        lock_folder(tmp_path)
    assert f"the last start, process {process.pid} on " in capsys.readouterr().out
