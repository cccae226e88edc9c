"""All that is read: named data sets and models, where each comes from, fetching them; texts, images and BERTs as plain records.

`sources` is the registry, `fetching` brings what it names; `texts`, `images` and `berts` read by name or path, `parts` splits.
By hand: `python -m data list`, `python -m data fetch NAME`, `python -m data path NAME`.
"""
