#!/bin/sh
# The first argument says which program runs: pktvisord, pktvisor-reader (or pktvisor-pcap), pktvisor-cli (or
# pktvisor), kprobe.
case ${1:-} in
pktvisord | pktvisor-reader | pktvisor-pcap | pktvisor-cli | kprobe) exec "$@" ;;
pktvisor)
  shift
  exec pktvisor-cli "$@"
  ;;
esac
echo "usage: pktvisord | pktvisor-reader | pktvisor-pcap | pktvisor-cli | pktvisor | kprobe [ARGUMENT...]" >&2
exit 1
