"""Several attempts at one task: side by side or one after the other, until one passes its tests."""
