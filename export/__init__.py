"""The student to take away: what a finished run leaves for use elsewhere.

Nothing in `common` or `data` imports it but the two commands `common.predict` and `common.cascade`.
"""
