"""The service proxy: what Services and EndpointSlices say, as nftables rules of this node."""
