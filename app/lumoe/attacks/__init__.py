"""Attacks that are reported, and tried by hand: none of them is trained or calibrated with."""
