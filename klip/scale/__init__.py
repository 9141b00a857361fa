"""Beyond one small machine: several processes, memory, speed, large manifests."""
