"""Fine-tuning (paper 4.1): the loop, its validation, runs kept on disk, sweeps of them."""
