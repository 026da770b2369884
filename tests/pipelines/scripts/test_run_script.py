"""The frame of every script: exit codes, what is printed last, what is waited for."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

FRAME = "from pipelines.run_script import run_script\ndef main():\n    {}\nrun_script(main)"


def run(*lines):
    code = FRAME.format("\n    ".join(lines))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("line", "code", "error"),
    [
        ("pass", 0, ""),
        ("return 1", 1, ""),
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit('in words')", 1, "in words\n"),
        ("raise KeyboardInterrupt", 130, ""),
        ("from llm_descriptions.errors import DescriptionError; raise DescriptionError('so')", 2, "error: so\n"),
        ("from vlmodels.errors import UserError; raise UserError('so')", 2, "error: so\n"),
        (
            "from vlmodels.errors import UserError; raise UserError('a' * 999 + ' so')",
            2,
            f"error: {'a' * 98}...{'a' * 98} so\n",
        ),
    ],
)
def test_exit_codes(line, code, error):
    done = run(line)
    assert (done.returncode, done.stderr) == (code, error)


@pytest.mark.parametrize("flush", [True, False])
def test_a_reader_that_has_ended_is_no_error(flush):
    code = FRAME.format(f"[print('line', flush={flush}) for _ in range(3)]")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()  # long before the first line is printed
    assert (process.stderr.read(), process.wait(timeout=60)) == (b"", 141)


def test_the_broken_pipe_of_something_else_shows_where():
    done = run("raise BrokenPipeError(32, 'Broken pipe')")
    assert (done.returncode, "Traceback" in done.stderr) == (1, True)


@pytest.mark.parametrize("name", ["loop", "X" * 300])
def test_names_that_no_file_can_have_are_one_line(name, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    done = run(f"open({str(tmp_path / name)!r})")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: /")


def test_a_mistake_of_ours_shows_where():
    done = run("raise ValueError('ours')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_what_was_printed_and_registered_comes_out_and_threads_are_waited_for():
    done = run(
        "import atexit, sys, threading, time",
        "from concurrent.futures import ThreadPoolExecutor",
        "global pool",
        "pool = ThreadPoolExecutor()",  # its threads end when the interpreter says so
        "pool.submit(time.sleep, 0).result()",
        "atexit.register(lambda: print('registered'))",
        "threading.Thread(target=lambda: (time.sleep(0.5), print('thread'))).start()",
        "sys.stdout.write('no line end')",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "no line endthread\nregistered\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_and_a_closed_terminal_end_what_runs_as_an_exception_does(number):
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("these tests run under nohup, so that they and their processes ignore the signal")
    lines = ("try:", "    print('up', flush=True)", "    import time; time.sleep(60)", "finally:", "    print('ended')")
    process = subprocess.Popen(
        [sys.executable, "-c", FRAME.format("\n    ".join(lines))], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "up\n"
    time.sleep(0.2)
    process.send_signal(number)
    assert process.communicate(timeout=30)[0] == "ended\n"
    assert process.returncode == 143
