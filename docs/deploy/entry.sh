#!/bin/sh
# The first argument says which program runs: pktvisord, pktvisor-reader (or pktvisor-pcap), pktvisor-cli (or
# pktvisor), kprobe. pktvisord gets the databases that are mounted under /geo-db and /iana, unless it is told
# other ones.
case ${1:-} in
pktvisord)
  shift
  [ ! -e "${GEO:=/geo-db}/city.mmdb" ] || set -- --default-geo-city "$GEO/city.mmdb" "$@"
  [ ! -e "$GEO/asn.mmdb" ] || set -- --default-geo-asn "$GEO/asn.mmdb" "$@"
  [ ! -e "${IANA:=/iana}/custom-iana.csv" ] || set -- --default-service-registry "$IANA/custom-iana.csv" "$@"
  exec pktvisord "$@"
  ;;
pktvisor-reader | pktvisor-pcap | pktvisor-cli | kprobe) exec "$@" ;;
pktvisor)
  shift
  exec pktvisor-cli "$@"
  ;;
esac
echo "usage: pktvisord | pktvisor-reader | pktvisor-pcap | pktvisor-cli | pktvisor | kprobe [ARGUMENT...]" >&2
exit 1
