"""The maintainers' tool that builds RESULTS.md and the pages of `results/` from the results.json of finished runs: all methods
side by side, and beside them what others report and claim. Nothing is trained or measured here, no script needs it, and no
figure is typed but those of others (`published`, `claims`), with their source.
"""
