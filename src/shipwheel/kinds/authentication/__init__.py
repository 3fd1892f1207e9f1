"""The `authentication.k8s.io` group: questions about who somebody is."""
