"""A run: its loop, its evaluation, and all that it leaves in its folder."""
