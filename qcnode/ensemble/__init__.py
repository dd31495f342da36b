"""Networks, their weights, and the grades they give."""
