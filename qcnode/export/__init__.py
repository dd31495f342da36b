"""What technologists graded, as a folder that training takes: images without a patient, and who says what of them."""
