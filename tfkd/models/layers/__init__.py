"""Layers of networks, and functions that make them."""
