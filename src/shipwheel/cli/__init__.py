"""The shipwheel command: parsing and printing only."""
