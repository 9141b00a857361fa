"""Image towers: made, loaded and saved, how images reach them, their blocks and the losses on top."""
