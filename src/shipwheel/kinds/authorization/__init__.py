"""The `authorization.k8s.io` group: questions about what somebody may do."""
