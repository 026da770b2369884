"""Commands of the test, each with a log file of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


class Failed(Exception):  # noqa: N818 - no mistake of a program
    """A command or a check failed."""


class Command:
    """A running command, without input and in a session of its own."""

    def __init__(self, argv: Sequence[str], log: Path, cwd: Path, env: Mapping[str, str]) -> None:
        self.argv, self.log = argv, log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    def wait_for(self, pattern: str, seconds: float = 180) -> re.Match[str]:
        """Wait until it prints ``pattern``."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            ended = self.process.poll() is not None
            if found := re.search(pattern, self.output):
                return found
            if ended:
                raise Failed(f"ended without '{pattern}': {self}")
            time.sleep(0.1)
        raise Failed(f"no '{pattern}' in {seconds:.0f} s: {self}")

    def wait_for_port(self, address: str, port: int, seconds: float = 120) -> None:
        """Wait until something listens there."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.poll() is None:
            try:
                socket.create_connection((address, port), 1).close()
            except OSError:
                time.sleep(0.2)
            else:
                return
        raise Failed(f"{address}:{port} does not answer: {self}")

    def end(self, seconds: float = 300) -> int:
        """Wait for its end; return the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.stop()
            raise Failed(f"not done in {seconds:.0f} s: {self}") from None

    def stop(self) -> None:
        """End it and what it started, now."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __str__(self) -> str:
        return f"{' '.join(map(str, self.argv))[:200]} (output in {self.log})"


class Commands:
    """Starts commands and numbers their logs."""

    def __init__(self, folder: Path, cwd: Path, env: Mapping[str, str]) -> None:
        self.folder, self.cwd, self.env = folder, cwd, {**os.environ, **env}
        self._count = 0
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, *argv: str) -> Command:
        """Start a command."""
        self._count += 1
        return Command(argv, self.folder / f"{self._count:02d}-{name}.log", self.cwd, self.env)

    def run(self, name: str, *argv: str, seconds: float = 300) -> str:
        """Run a command, which must succeed; return what it printed."""
        command = self.start(name, *argv)
        code = command.end(seconds)
        if code:
            raise Failed(f"exit code {code}: {command}")
        return command.output
