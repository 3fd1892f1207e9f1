"""Cluster DNS: names of Services and pods, by the Kubernetes DNS specification; everything else is passed on."""
