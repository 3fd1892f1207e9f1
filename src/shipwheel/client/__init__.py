"""What every component needs to speak to an API server."""
