"""Tests and distances that two stages share; pure: numbers in, numbers out."""
