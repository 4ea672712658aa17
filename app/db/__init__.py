"""The truth: tables, sessions and typed repositories over them."""
