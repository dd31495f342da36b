"""Many runs compared: cross-validation, the paper's tables, few labels, the baseline of metrics and forests."""
