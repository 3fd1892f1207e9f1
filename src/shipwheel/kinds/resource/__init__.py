"""The `resource.k8s.io` group: dynamic resource allocation."""
