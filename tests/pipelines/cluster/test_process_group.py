"""Where ranks meet: on the interface that Ray uses."""

from __future__ import annotations

import os

import ray
import torch
from ray.train import RunConfig, ScalingConfig
from torch import distributed as dist

from pipelines.cluster.process_group import TorchGroup, interface_of, use_rays_interface
from pipelines.runs.trainer import Trainer


def test_the_interface_is_that_of_an_address(monkeypatch):
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") == ""  # RFC 5737: reserved
    assert interface_of("::1") == ""
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "mine")
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    use_rays_interface()
    assert (os.environ["GLOO_SOCKET_IFNAME"], os.environ["NCCL_SOCKET_IFNAME"]) == ("mine", "=lo")
    monkeypatch.delenv("NCCL_SOCKET_IFNAME")
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "192.0.2.1")
    use_rays_interface()
    assert "NCCL_SOCKET_IFNAME" not in os.environ


def test_workers_of_ray_meet_on_its_interface(ray_session, tmp_path):
    def met(_):  # in here, so that workers need not import this module
        number = torch.ones(1)
        dist.all_reduce(number)
        return os.environ["GLOO_SOCKET_IFNAME"], float(number)

    trainer = Trainer(
        met,
        alone=True,
        train_loop_config={},
        torch_config=TorchGroup(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(name="met", storage_path=str(tmp_path)),
    )
    result = trainer.fit()
    assert result.return_value == (interface_of(ray.util.get_node_ip_address()), 2)
