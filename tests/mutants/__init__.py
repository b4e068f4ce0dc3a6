"""Planted bugs: each is switched on in turn, and has to be caught (docs/testing.md).
Nothing of this is in the product.
"""
