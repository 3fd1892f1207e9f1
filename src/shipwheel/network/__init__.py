"""Service proxy, pod network and cluster DNS."""
