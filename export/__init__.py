"""The student to take away: what a finished run leaves for use elsewhere. But for the two commands
`common.predict` and `common.cascade`, nothing in `common` or `data` imports it."""
