"""Data for a first run: real published events as records, and fictional decisions to copy from."""
