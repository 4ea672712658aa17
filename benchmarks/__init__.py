"""Measurements of the figures that the project promises; each prints a table and writes JSON."""
