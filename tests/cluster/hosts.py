"""Hosts on one machine: each with a network, processes, a host name, a home and temporary folders of its own.

``python -m tests.cluster.hosts NAME ADDRESS FOLDER`` is the first process of such a host. It ends with its parent, and
the kernel then ends everything on the host.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
IMAGE = (Path(sys.prefix), Path(sys.base_prefix))  # what a host shares with this machine, to be read only
NETWORK, BITS = "10.77.0", 24
OUTSIDE, STOREROOM, HEAD, WORKER = (f"{NETWORK}.{number}" for number in (254, 253, 10, 11))
PRIVATE = tuple(map(Path, ("/tmp", "/var/tmp", "/root", "/run")))
_MS_RDONLY, _MS_REMOUNT, _MS_BIND = 1, 32, 4096


def isolated(command: Sequence[str]) -> list[str]:
    """Return the command in namespaces of its own; it is killed, with all that it started, when its parent ends."""
    spaces = ["--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
    return ["setpriv", "--pdeathsig", "KILL", "unshare", *spaces, *command]


def run(*command: str) -> None:
    """Run a command that must not fail."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def cover(
    folder: Path, covered: Iterable[Path], *, keep: Iterable[Path] = (), keep_writable: Iterable[Path] = ()
) -> None:
    """Put empty folders of ``folder`` in place of ``covered``, in this mount namespace; what is kept stays seen."""
    mounts = [(path, _made(folder / path.relative_to("/")), 0) for path in covered]
    mounts += [(path, path, 0) for path in keep_writable]
    mounts += [(path, path, _MS_RDONLY) for path in keep]
    opened = [os.open(source, os.O_PATH) for _, source, _ in mounts]  # they have no path any more once covered
    for (path, _, flags), descriptor in zip(mounts, opened, strict=True):
        _bind(f"/proc/self/fd/{descriptor}", _made(path), flags)
        os.close(descriptor)
    Path("/tmp").chmod(0o1777)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _bind(source: str, target: Path, flags: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for step in (_MS_BIND, *([_MS_BIND | _MS_REMOUNT | flags] if flags else [])):
        if libc.mount(source.encode(), str(target).encode(), b"none", step, None):
            raise OSError(ctypes.get_errno(), f"mount {source} on {target}: {os.strerror(ctypes.get_errno())}")


class Host:
    """A host, joined to the bridge while its cable is plugged in."""

    def __init__(self, name: str, address: str, folder: Path, public_key: str) -> None:
        self.name, self.address, self.folder = name, address, folder
        ssh = folder / "root" / ".ssh"
        ssh.mkdir(parents=True)
        (ssh / "authorized_keys").write_text(public_key)
        (folder / "root" / ".bashrc").touch()
        (folder / "root" / ".profile").write_text(". ~/.bashrc\n")
        with (folder / "console.log").open("wb") as log:
            command = isolated([sys.executable, "-m", "tests.cluster.hosts", name, address, str(folder)])
            self.process = subprocess.Popen(command, cwd=CHECKOUT, stdout=log, stderr=subprocess.STDOUT)
        own, space = Path("/proc/self/ns/net").readlink(), Path(f"/proc/{self.process.pid}/ns/net")
        while space.readlink() == own:
            time.sleep(0.02)
        run("ip", "link", "add", name, "type", "veth", "peer", "eth0", "netns", str(self.process.pid))
        run("ip", "link", "set", name, "master", "bridge")
        self.cable(plugged=True)

    def cable(self, *, plugged: bool) -> None:
        """Cut the host off, or join it again."""
        run("ip", "link", "set", self.name, "up" if plugged else "down")


def name_all(folder: Path, *more: str) -> None:
    """Give this mount namespace names for all addresses, and no name server to wait for.

    gloo asks for the names of those that it talks to: 10 s for each group of workers if nothing answers.
    """
    names = {HEAD: "head", WORKER: "worker", OUTSIDE: "outside", STOREROOM: "store"}
    known = ["127.0.0.1 localhost", *more, *(f"{address} {name}.lab" for address, name in names.items())]
    for path, lines in (("/etc/hosts", known), ("/etc/resolv.conf", ["nameserver 127.0.0.1"])):
        own = folder / Path(path).name
        own.write_text("\n".join(lines) + "\n")
        _bind(str(own), Path(path))


def build_bridge() -> None:
    """Build the network that joins the hosts and this process."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "bridge", "type", "bridge")
    for address in (OUTSIDE, STOREROOM):
        run("ip", "address", "add", f"{address}/{BITS}", "dev", "bridge")
    run("ip", "link", "set", "bridge", "up")


def _install_image() -> None:
    """Put the pinned packages, without the project, where the cluster's file looks for them."""
    image = Path("/root/.vidadapt")
    run(sys._base_executable, "-m", "venv", "--without-pip", str(image))
    (packages,) = image.glob("lib/python*/site-packages")
    (packages / "image.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    ray = image / "bin" / "ray"
    ray.write_text(f"#!{image}/bin/python\nfrom ray.scripts.scripts import main\n\nmain()\n")
    ray.chmod(0o755)


def _live(name: str, address: str, folder: Path) -> None:
    """Be the host: set it up, serve ssh, reap its processes."""
    # The host's own name means loopback, as on Debian.
    name_all(folder, f"127.0.1.1 {name}")
    run("mount", "-t", "tmpfs", "tmpfs", "/dev/shm")
    cover(folder, [*PRIVATE, CHECKOUT], keep=IMAGE)
    run("hostname", name)
    while not Path("/proc/self/net/dev").read_text().count("eth0"):
        time.sleep(0.02)
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{address}/{BITS}", "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")
    run("ip", "route", "add", "default", "via", OUTSIDE)
    _install_image()
    Path("/run/sshd").mkdir()
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/run/hostkey")
    settings = ["HostKey=/run/hostkey", "PidFile=none", "UsePAM=no", "StrictModes=no", "PasswordAuthentication=no"]
    flags = [part for setting in [*settings, "PermitRootLogin=yes", "UseDNS=no"] for part in ("-o", setting)]
    os.chdir("/root")
    subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", *flags])
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == "__main__":
    _live(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
