"""Search spaces of the methods' settings, the papers' ablations, and the Ray Tune that runs a search.

``domains``: the values of a setting. ``layer_ranges``: ranges of layers. ``spaces``: spaces that the metadata of a
``Config`` describe. ``ablation_file``, ``ablations``: ablations in TOML files, and the published ones. ``search``: the
kinds of search. ``tuner``, with ``searchers``, ``schedulers`` and ``trials``: Ray Tune.
"""
