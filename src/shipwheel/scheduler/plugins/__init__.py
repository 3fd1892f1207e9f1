"""The rules, a module for those that are about the same thing, under upstream's names."""
