"""Everything that touches the world: mitmproxy, clocks, the process itself."""
