"""The node agent: makes pods real and keeps them so."""
