#!/bin/sh
# The first argument says which program runs: pktvisord, pktvisor-reader (or pktvisor-pcap), pktvisor-cli (or
# pktvisor), kprobe. pktvisord gets the databases that are mounted under /geo-db and /iana, unless it is told
# other ones.
case ${1:-} in
pktvisord)
  shift
  for row in "geo-city ${GEO:=/geo-db}/city.mmdb" "geo-asn $GEO/asn.mmdb" \
    "service-registry ${IANA:=/iana}/custom-iana.csv"; do
    flag=--default-${row%% *} file=${row#* }
    # a flag that is given twice is refused
    case " $* " in *" $flag"[=\ ]*) continue ;; esac
    [ ! -e "$file" ] || set -- "$flag" "$file" "$@"
  done
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
