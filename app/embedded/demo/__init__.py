"""`lethe demo`: one entity of the demo world is forgotten before your eyes, and nobody else is touched."""
