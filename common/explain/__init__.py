"""What an agent sees: pictures, videos, a page, and numbers against the true foreground."""
