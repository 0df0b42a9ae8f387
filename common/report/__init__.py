"""HTML pages, and the plots on them, that studies and explanations share."""
