"""Whole requests of a framework: one file each, imported only by who uses that framework."""
