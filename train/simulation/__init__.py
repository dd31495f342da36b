"""Whole low-field scans with known artifacts: heads, poses, contrasts, k-space; the paper's copies of rated scans."""
