"""A Ray that RAY_ADDRESS names and that is not there: one line says so, and soon."""

from __future__ import annotations

import logging
import socket
from types import SimpleNamespace

import pytest
import ray

from pipelines.cluster import session
from vlmodels.errors import UserError


@pytest.fixture
def apart(monkeypatch):
    """As in a process that has not joined any Ray."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_nothing_listens(apart, monkeypatch, scheme):
    with socket.socket() as held:  # bound, and refusing
        held.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{held.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(UserError, match=rf"^RAY_ADDRESS={address}: no Ray answers there \(.*refused\); correct it"):
            session.connect()


@pytest.mark.parametrize("error", [ConnectionError("Could not find any\n running Ray"), ValueError("Invalid address")])
def test_ray_finds_none(apart, monkeypatch, error):
    def init(**_):
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(UserError, match=r"^RAY_ADDRESS=auto: .*or unset RAY_ADDRESS for a Ray of this machine alone$"):
        session.connect()
    monkeypatch.delenv("RAY_ADDRESS")
    with pytest.raises(UserError, match="Ray did not start on this machine, tried twice"):
        session.connect()


@pytest.mark.parametrize(
    ("dashboard", "shown"),
    [(None, {"include_dashboard": False}), ("0.0.0.0", {"include_dashboard": True, "dashboard_host": "0.0.0.0"})],
)
def test_without_an_address_a_ray_of_its_own_is_started(apart, monkeypatch, dashboard, shown):
    started = []
    monkeypatch.setattr(ray, "init", lambda **settings: started.append(settings) or SimpleNamespace(dashboard_url=None))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("VIDADAPT_DEBUG", raising=False)
    assert session.connect(3, dashboard=dashboard) == ""
    own = {"address": "local", "num_cpus": 3, "object_store_memory": 1 << 30} | shown
    assert started == [own | {"logging_level": logging.ERROR, "log_to_driver": False}]


def test_what_a_block_holds_is_released_if_it_is_interrupted(ray_session):
    def one_cpu():
        group = ray.util.placement_group([{"CPU": 1}])
        assert group.wait(60)  # Ray may lose the CPUs of a group that is removed while it is made
        return group

    before = one_cpu()
    inside = []

    def interrupted():
        with session.release_after():
            inside.append(one_cpu())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    states = {key: group["state"] for key, group in ray.util.placement_group_table().items()}
    assert states[inside[0].id.hex()] == "REMOVED"
    assert states[before.id.hex()] != "REMOVED"
    ray.util.remove_placement_group(before)
