"""PyModm."""
