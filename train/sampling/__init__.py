"""What a batch is made from: scans drawn anew and varied, with their masks, measures and truths beside them."""
