"""pktvisor-cli and a real pktvisord on a veth pair: what one measures, the other shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import agent_server
import netns
import pytest
from agentkit import CAPTURES, PORT, Agent
from ptykit import terminal

import netprobe

pytestmark = [pytest.mark.root, pytest.mark.tool("tcpreplay", "ethtool")]

HOSTS = "10.77.0.2/32,fd77::2/128"


def configuration(iface: str) -> dict[str, Any]:
    """Policies default, v2 (versions 2.0) and single (one period) on one input."""

    def policy(modules: dict[str, Any], **more: Any) -> dict[str, Any]:
        handlers = {**more, "modules": modules}
        return {"kind": "collection", "input": {"tap": "wire", "input_type": "pcap"}, "handlers": handlers}

    wire = {"input_type": "pcap", "config": {"iface": iface, "host_spec": HOSTS}}
    second = {name: {"type": name, "require_version": "2.0"} for name in ("net", "dns")}
    return {
        "version": "1.0",
        "visor": {
            "taps": {"wire": wire},
            "policies": {
                "default": policy({name: {"type": name} for name in ("net", "dns", "dhcp", "pcap")}),
                "v2": policy(second),
                "single": policy({"dns": {"type": "dns"}}, window_config={"num_periods": 1}),
            },
        },
    }


def test_what_the_agent_measures_is_shown(tmp_path: Path) -> None:
    with netns.pair() as (sender, receiver):
        config = tmp_path / "agent.yaml"
        config.write_text(json.dumps(configuration(receiver.iface)))
        agent = Agent(receiver, "--config", str(config))
        with terminal(prefix=receiver.command([]), size=(200, 50)) as screen:
            version = netprobe.__version__
            screen.until(f"pktvisor-cli (client: {version} | server: {version}) Policy: default", "Pkts 0 ")
            assert sender.replay(CAPTURES / "demo.pcap") == 408
            # as tshark counts them, and the README's demo
            screen.until("Pkts 408 ", "UDP 91 (22.3%)", "IPv6 106 (26.0%)", "DNS Pkts 100/100", "84 (84.0%)")
            screen.type(b"p")
            screen.until("v2  (dns net, 5 periods)", "single  (dns, one period: no window)")
            assert b"resources" not in screen.output
            screen.type(b"\x1b[F\r")  # End, Enter
            screen.until("Policy: v2", "/100 |")
            screen.type(b"p")
            screen.until("Enter shows")
            screen.type(b"\x1b[A\r")  # up from where we are, Enter
            screen.until("Policy: single", "bucket/0")
            # the agent goes, and comes back
            assert agent.stop() == 0
            screen.until("connection refused")
            again = Agent(receiver, "--config", str(config))
            screen.output = b""
            screen.until("DNS Pkts 0/0")
            screen.type(b"q")
            assert screen.ended() == 0
        assert again.stop() == 0


@pytest.mark.tool("openssl")
def test_tls(tmp_path: Path) -> None:
    cert, _ = agent_server.certificate(tmp_path)
    with netns.pair() as (_, receiver):
        files = ("--tls-cert", str(cert), "--tls-key", str(tmp_path / "key.pem"))
        agent = Agent(receiver, "--tls", *files, receiver.iface, tls=True)
        prefix = receiver.command([])
        with terminal("-tls", prefix=prefix, size=(200, 50)) as screen:
            screen.until("certificate: self-signed certificate")
        with terminal("-tls", prefix=prefix, size=(200, 50), SSL_CERT_FILE=str(cert)) as screen:
            screen.until("Pkts 0 ")
        with terminal("-tls-noverify", "-p", str(PORT), prefix=prefix, size=(200, 50)) as screen:
            screen.until("Pkts 0 ")
        assert agent.stop() == 0
