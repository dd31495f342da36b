"""`qcnode shadow`: weights on trial beside the active ones, and how they take their place."""
