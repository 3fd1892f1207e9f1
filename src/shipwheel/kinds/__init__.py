"""The built-in API groups: a module a group (or a large kind) declares its kinds and their strategies."""
