"""Verification: what is measured before an expert may go live, and how."""
