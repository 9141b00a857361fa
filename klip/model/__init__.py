"""Image towers: made, loaded, saved; how images reach them; their blocks and losses."""

from klip.settings.garbage import loading

with loading():
    import open_clip as open_clip  # and torch, torchvision, timm
