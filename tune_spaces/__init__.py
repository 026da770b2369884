"""Search spaces of the methods' settings, and the papers' ablations.

``domains``: what a setting may be; ``insertion``: ranges of layers; ``spaces``: spaces derived from a ``Config``'s
metadata, and ablations read from TOML files.
"""
