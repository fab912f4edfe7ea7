"""An atlas of places: imported, described, drawn."""
