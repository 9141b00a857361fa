"""Images and what they show: catalogues from folders and manifests, their sources, balance
and long tail.
"""
