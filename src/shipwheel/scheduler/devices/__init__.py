"""Devices: which of them meet a pod's claims (KEP-4381, structured parameters)."""
