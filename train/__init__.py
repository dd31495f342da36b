"""python -m train: the BRIQA method, from labelled scans to an ensemble."""
