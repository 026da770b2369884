"""PostgreSQL of Debian's package, in a folder of its own and as an unprivileged user: it refuses to be root's."""

from __future__ import annotations

import pwd
import shutil
from pathlib import Path

from tests.cluster.commands import Command, Commands

PACKAGE = "postgresql"
DRIVER = "psycopg2"
"""The module by which SQLAlchemy, and so MLflow's server, speaks to it."""
_PROGRAMS = Path("/usr/lib/postgresql")
_PORT = 5432


def programs() -> Path | None:
    """Return the folder of the newest version's programs; None without one. They are not on the PATH."""
    found = [path.parent for path in _PROGRAMS.glob("*/bin/initdb")]
    return max(found, key=lambda folder: float(folder.parent.name), default=None)


class Postgres:
    """A server with one database, on the loopback alone; ``uri`` is SQLAlchemy's name of it."""

    def __init__(self, commands: Commands, folder: Path) -> None:
        found = programs()
        assert found is not None, f"there is no {_PROGRAMS}/*/bin: apt-get install {PACKAGE}"
        self._commands, self._programs, self._folder = commands, found, folder / "postgres"
        self._user = pwd.getpwnam("nobody")
        self._folder.mkdir(mode=0o700)
        shutil.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        for parent in (folder, *folder.parents):  # to be passed through, not to be listed
            if parent != Path("/") and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
        self.uri = f"postgresql+{DRIVER}://mlflow@127.0.0.1:{_PORT}/postgres"

    def start(self) -> Command:
        """Make the database and start the server."""
        data = str(self._folder / "data")
        made = [
            "initdb",
            "--pgdata",
            data,
            "--username",
            "mlflow",
            "--auth",
            "trust",
            "--encoding",
            "UTF8",
            "--no-sync",
        ]
        self._commands.run("initdb", *self._as_user(*made))
        settings = {"listen_addresses": "127.0.0.1", "port": _PORT, "unix_socket_directories": "", "fsync": "off"}
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        server = self._commands.start("postgres", *self._as_user("postgres", "-D", data, *flags))
        server.wait_for_port("127.0.0.1", _PORT)
        return server

    def _as_user(self, program: str, *arguments: str) -> list[str]:
        ids = ["--reuid", str(self._user.pw_uid), "--regid", str(self._user.pw_gid), "--clear-groups"]
        return ["setpriv", *ids, str(self._programs / program), *arguments]
