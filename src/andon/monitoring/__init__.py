"""The eyes on a live model: labels joined, profiles, monitors and alerts."""
