"""The agent: options, log, privileges, web server; `netprobe.agent` runs what `netprobe.policy` built."""
