"""Instances → volume → network input; and the way back to a picture."""
