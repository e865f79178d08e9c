"""The world itself: things, places, scenes, captions."""
