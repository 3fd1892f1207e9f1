"""Expressions in CEL, as rules of custom resources, selectors of devices and admission policies have them.

The runtime is that of the language's authors. It is imported when the first expression is read: few clusters have any.
"""
