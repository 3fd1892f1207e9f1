"""The `settings.k8s.io` group, of the past."""
