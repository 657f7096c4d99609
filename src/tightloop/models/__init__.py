"""Model files shipped inside the package."""
