"""The API server: one request pipeline, one registry for all kinds."""
