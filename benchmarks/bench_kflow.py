"""What it costs to send flow records: kflow encoding, gzip (level 1), POST to loopback.

    python benchmarks/bench_kflow.py [--records N] [--batch N] [--runs N]

Prints records per second of CPU time (user + system of the whole process; the receiver is another one), for
the whole way and for encoding and compressing alone, and beside it what plain pycapnp takes for the encoding.
The records are random flows as kprobe exports them: a fifth IPv6, tracker columns in all, HTTP columns in a
tenth, DNS columns in another one. Timings are only worth something on an idle machine.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import time
import zlib
from array import array
from typing import Any

from netprobe._core.kflow import Batch, pack
from netprobe.kentik import Credentials, CustomColumns, Field, Records
from netprobe.kentik.api import Device
from netprobe.kentik.columns import Column
from netprobe.kentik.flows import HEADERS, FlowSender, flow_url
from netprobe.kentik.http import Session
from netprobe.kentik.kflow import encode
from netprobe.kentik.records import native_batch
from netprobe.kentik.worker import Errors

BAR, AIM = 25_000, 60_000
NAMES = """FRAGMENTS APPL_LATENCY_MS FPEX_LATENCY_MS CLIENT_NW_LATENCY_MS SERVER_NW_LATENCY_MS
    RETRANSMITTED_OUT_PKTS REPEATED_RETRANSMITS OOORDER_IN_PKTS RECEIVE_WINDOW ZERO_WINDOWS CONNECTION_ID"""
TEXTS = "KFLOW_DNS_QUERY KFLOW_DNS_RESPONSE KFLOW_HTTP_URL KFLOW_HTTP_HOST KFLOW_HTTP_REFERER KFLOW_HTTP_UA"
NUMBERS = "KFLOW_DNS_QUERY_TYPE KFLOW_DNS_RET_CODE KFLOW_HTTP_STATUS"

#: reads and throws away
SINK = """
import http.server
class Sink(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


def columns() -> CustomColumns:
    listed = [(name, "uint32") for name in (NAMES + " " + NUMBERS).split()]
    listed += [(name, "string") for name in TEXTS.split()]
    return CustomColumns(Column(i + 1, *entry) for i, entry in enumerate(listed))


def records(count: int, seed: int = 1) -> Records:
    """Buffers throughout, as the flow table gives them."""
    rng = random.Random(seed)

    def numbers(kind: str, top: int) -> array[int]:
        return array(kind, (rng.randrange(top) for _ in range(count)))

    l3 = bytes(6 if rng.random() < 0.2 else 4 for _ in range(count))
    address = {
        4: lambda: rng.randbytes(4) + bytes(12),
        6: lambda: bytes.fromhex("20010db8") + rng.randbytes(12),
    }
    zeros = array("Q", bytes(8 * count))
    fields: dict[str, Field] = {
        "CONNECTION_ID": Field(numbers("I", 1 << 32), skip_zero=True),
        "RECEIVE_WINDOW": Field(numbers("I", 1 << 20)),
        "CLIENT_NW_LATENCY_MS": Field(numbers("H", 3), skip_zero=True),
        "FPEX_LATENCY_MS": Field(numbers("H", 50), skip_zero=True),
        "RETRANSMITTED_OUT_PKTS": Field(
            array("H", (int(rng.random() < 0.05) for _ in range(count))), skip_zero=True
        ),
    }
    kinds = rng.choices(("http", "dns", ""), (1, 1, 8), k=count)
    for name in TEXTS.split() + NUMBERS.split():
        mark = bytes(f"KFLOW_{kind.upper()}" in name if kind else 0 for kind in kinds)
        if name in NUMBERS:
            fields[name] = Field(numbers("H", 500), present=mark)
            continue
        texts = [f"/{rng.randrange(10**6)}/{rng.choice(NAMES.split())}.html" if m else "" for m in mark]
        offsets = array("i", [0])
        for text in texts:
            offsets.append(offsets[-1] + len(text))
        fields[name] = Field("".join(texts).encode(), present=mark, offsets=offsets)
    return Records(
        count,
        {
            "l3": l3,
            "src": b"".join(address[kind]() for kind in l3),
            "dst": b"".join(address[kind]() for kind in l3),
            "proto": bytes(rng.choices((6, 17, 1), (7, 2, 1), k=count)),
            "sport": numbers("H", 65536),
            "dport": array("H", rng.choices((80, 443, 53, 8080), k=count)),
            "src_mac": numbers("Q", 1 << 48),
            "dst_mac": numbers("Q", 1 << 48),
            "tos": bytes(count),
            "tcp_flags": bytes(rng.choices((0x18, 0x1B, 0x10), k=count)),
            "in_pkts": zeros,
            "in_bytes": zeros,
            "out_pkts": array("Q", (1 + rng.randrange(30) for _ in range(count))),
            "out_bytes": numbers("Q", 20_000),
            "output_port": numbers("H", 65536),
            "app_protocol": bytes({"http": 2, "dns": 1, "": 0}[kind] for kind in kinds),
        },
        fields,
    )


def rate(count: int, runs: int, step: Any) -> float:
    """Median of records per second of CPU."""
    found = []
    for _ in range(runs):
        began = time.process_time()
        step()
        found.append(count / (time.process_time() - began))
    return statistics.median(found)


def plain_pycapnp(count: int) -> None:
    """What the same fields cost with one Python assignment each: no custom columns, to its advantage."""
    from netprobe.kentik.kflow import load_schema

    root = load_schema().PackedCHF.new_message()
    names = [
        "protocol",
        "ipv4SrcAddr",
        "ipv4DstAddr",
        "l4SrcPort",
        "l4DstPort",
        "srcEthMac",
        "dstEthMac",
        "tos",
        "tcpFlags",
        "outPkts",
        "outBytes",
        "outputPort",
        "sampleRate",
        "deviceId",
        "appProtocol",
    ]
    for record in root.init("msgs", count):
        record.sampleAdj = True
        for name in names:
            setattr(record, name, 1)
    root.to_bytes_packed()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=4000, help="records per message (max_flow_rate)")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()

    offered = columns()
    pool = records(args.batch)
    posts = max(args.records // args.batch, 1)
    count = posts * args.batch
    device = Device(7, "bench", 1, 1, args.batch * 1000, offered)

    def native() -> Batch:
        return native_batch(pool, offered.bind(pool.fields))

    def encode_all() -> None:
        for _ in range(posts):
            encode([(native(), 0, args.batch)], 7)

    def pack_all() -> None:
        for _ in range(posts):
            pack([(native(), 0, args.batch)], 7)

    message = pack([(native(), 0, args.batch)], 7)
    body = encode([(native(), 0, args.batch)], 7)
    assert len(zlib.decompress(body, 31)) == 80 + len(message)

    with subprocess.Popen([sys.executable, "-c", SINK], stdout=subprocess.PIPE, text=True) as sink:
        assert sink.stdout is not None
        try:
            base = f"http://127.0.0.1:{int(sink.stdout.readline())}/chf"
            credentials = Credentials("bench@example.test", "x" * 32)
            session = Session(credentials)

            def post_all() -> None:
                for _ in range(posts):
                    answer = session.send(
                        "POST", flow_url(base, device), encode([(native(), 0, args.batch)], 7), HEADERS
                    )
                    assert answer.status == 200

            def send_all() -> None:
                """The whole sender: queue, threads, batches of one tick."""
                sender = FlowSender(lambda: Session(credentials), base, device, Errors(), tick_s=0.001)
                sender.start()
                for _ in range(posts):
                    assert sender.send(native(), wait_s=60) == args.batch
                assert sender.stop(60)
                assert sender.stats().posted == count

            rows = [
                ("pack", rate(count, args.runs, pack_all)),
                ("pack + gzip", rate(count, args.runs, encode_all)),
                ("pack + gzip + POST", rate(count, args.runs, post_all)),
                ("FlowSender, threads and queue included", rate(count, args.runs, send_all)),
                (
                    "plain pycapnp, no custom columns, encoding only",
                    rate(20_000, 1, lambda: plain_pycapnp(20_000)),
                ),
            ]
        finally:
            sink.terminate()
    packed, squeezed = len(message) / args.batch, len(body) / args.batch
    print(f"{count} records in messages of {args.batch}; bytes per record {packed:.0f}, gzip {squeezed:.0f}.")
    print("Records per second of CPU time:\n")
    for name, value in rows:
        print(f"  {name:50} {value:12,.0f}   {1e6 / value:6.2f} us")
    worst = min(value for _, value in rows[2:4])
    verdict = "aim reached" if worst >= AIM else "bar reached" if worst >= BAR else "BELOW THE BAR"
    print(f"\nbar {BAR:,}, aim {AIM:,}: {verdict}")


if __name__ == "__main__":
    main()
