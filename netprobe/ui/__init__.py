"""pktvisor-cli's screen: what an agent measures, live, in a terminal.

`client` asks an agent, `poller` decides what to ask and when, `document` finds the figures in an answer,
`picture` turns them into lines and tables, `app` shows those. Only `app`, `panels` and `terminal` need
Textual (extra `ui`).
"""
