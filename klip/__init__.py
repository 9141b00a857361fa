"""klip: fine-tune a CLIP image tower on retail products and recognise unseen ones from one packshot each."""

__version__ = "0.1.0"
