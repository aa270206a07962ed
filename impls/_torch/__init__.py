"""What the PyTorch implementations share: a network and its session around a recurrent core."""
