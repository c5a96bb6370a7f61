"""kprobe against the letter of its specification: what a second reader found missing in the other tests."""

from __future__ import annotations

from typing import Any

import pytest
from kentik_server import DeviceSpec, KentikServer
from test_kentik_api import settings

from netprobe.kentik import DeviceNotFound
from netprobe.kentik.api import Device, DeviceApi
from netprobe.kentik.client import find_device


def test_a_name_is_never_taken_for_an_address() -> None:
    """9.1: by name, dots become underscores, whatever the name looks like."""
    with KentikServer([DeviceSpec(7, "x", ips=("192.0.2.7",)), DeviceSpec(8, "192.0.2.7")]) as server:
        chosen = settings(server, device_name="192.0.2.7")
        api = DeviceApi(chosen.session(), server.api_url)
        assert find_device(api, chosen, None).id == 8
        assert find_device(api, settings(server, device_ip="192.0.2.7", device_name="x"), None).id == 7
        with pytest.raises(DeviceNotFound):
            find_device(api, settings(server, device_name="192.0.2.8"), None)
        assert [seen.path.rpartition("/")[2] for seen in server.requests] == [
            "192_0_2_7",
            "192.0.2.7",
            "192_0_2_8",
        ]
        server.verify()


@pytest.mark.parametrize("key", ["device_sample_rate", "max_flow_rate", "custom_column_data"])
def test_null_is_as_good_as_absent(key: str) -> None:
    document: dict[str, Any] = {**DeviceSpec(7, "probe-1").document(), key: None}
    device = Device.parse(document)
    del document[key]
    absent = Device.parse(document)
    assert (device.sample_rate, device.max_flow_rate) == (absent.sample_rate, absent.max_flow_rate)
    assert not device.columns.columns or key != "custom_column_data"
