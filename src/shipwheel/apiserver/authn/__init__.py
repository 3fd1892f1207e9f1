"""Who sends a request: X.509 certificates, service-account tokens, anonymous."""
