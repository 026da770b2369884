"""Ray Train's process group, bound to the network that Ray itself uses."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any

import ray.util
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

_SIOCGIFADDR = 0x8915  # netdevice(7)


@dataclass
class TorchGroup(TorchConfig):
    """``TorchConfig`` whose workers meet on the interface that has their node's Ray address.

    GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME, where a user sets them, are kept (docs/RAY.md#where-ranks-meet).
    """

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """Return the class that sets the group up."""
        return _OnRaysNetwork


class _OnRaysNetwork(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(use_rays_interface)
        super().on_start(worker_group, backend_config)


def use_rays_interface() -> None:
    """Let gloo and NCCL use the interface with this node's Ray address, unless the environment names another."""
    if name := interface_of(ray.util.get_node_ip_address()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")  # "=": this name, not a prefix


def interface_of(address: str) -> str:
    """Return the name of the interface whose first IPv4 address this is; "" if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:  # no IPv4 address
                continue
            if socket.inet_ntoa(answer[20:24]) == address:  # struct ifreq: name (16), family (2), port (2), address
                return name
    return ""
