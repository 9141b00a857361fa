"""Image towers: made, loaded, saved; how images reach them; their blocks and losses."""
