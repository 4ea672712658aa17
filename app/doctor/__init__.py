"""`lethe doctor`: whether everything that must always be true is true of this system now."""
