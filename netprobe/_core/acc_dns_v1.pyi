from netprobe._core.acc_dns import DnsAccumulator

class DnsV1(DnsAccumulator):
    @staticmethod
    def fields() -> dict[str, tuple[str, int]]: ...
