"""What is read of, and made from, the graph of a functional model."""
