"""What an object is: kinds and schemas, names, quantities, selectors, patches, codecs, tables.

Imports nothing of ours.
"""
